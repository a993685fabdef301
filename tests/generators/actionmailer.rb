# Sends one e-mail as a Rails application does. Action Mailer makes up the
# Content-ID of an inline image anew each time, and the HTML refers to it.
#
#     actionmailer.rb HOST PORT TOKEN

require 'base64'
require 'action_mailer'

HOST, PORT, TOKEN = ARGV
LOGO = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=='.freeze

ActionMailer::Base.delivery_method = :smtp
ActionMailer::Base.smtp_settings = { address: HOST, port: PORT.to_i, enable_starttls_auto: false }
ActionMailer::Base.logger = nil

# The mails of an account.
class AccountMailer < ActionMailer::Base
  default from: 'Café Exämple <app@example.com>'

  def reset(token)
    link = "https://shop.example.com/reset/#{token}/"
    attachments.inline['logo.png'] = Base64.decode64(LOGO)
    attachments['résumé.pdf'] = "%PDF-1.4\nnot really one\n"
    logo = attachments['logo.png'].url
    mail(to: 'user@example.com', subject: 'Café Exämple: choose a new password ✓') do |format|
      format.text { render plain: "Hello,\n\nNaïve question: was it you? Then follow this link:\n\n    #{link}\n" }
      format.html do
        render html: "<p><img src=\"#{logo}\" alt=\"Café\"></p>\n<p><a href=\"#{link}\">Choose</a> – or don't.</p>\n".html_safe
      end
    end
  end
end

AccountMailer.reset(TOKEN).deliver_now
