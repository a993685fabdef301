# Sends one e-mail with Ruby's net-smtp; prints the reply.
#
#     net_smtp.rb PORT FILE
#     net_smtp.rb              (prints the version)

require 'net/smtp'

port, file = ARGV
if port.nil?
  puts Net::SMTP::VERSION
else
  Net::SMTP.start('127.0.0.1', port.to_i, 'client.test') do |smtp|
    puts smtp.send_message(File.binread(file), 'app@a.test', 'ann@b.test').string
  end
end
