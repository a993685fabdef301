import java.util.Base64;
import java.util.Properties;
import javax.activation.DataHandler;
import javax.mail.Message;
import javax.mail.Part;
import javax.mail.Session;
import javax.mail.Transport;
import javax.mail.internet.InternetAddress;
import javax.mail.internet.MimeBodyPart;
import javax.mail.internet.MimeMessage;
import javax.mail.internet.MimeMultipart;
import javax.mail.util.ByteArrayDataSource;

/**
 * Sends one e-mail as an application with JavaMail does.
 *
 * <pre>java -cp /usr/share/java/javax.mail.jar:/usr/share/java/javax.activation.jar JavaMail.java HOST PORT TOKEN</pre>
 */
public class JavaMail {
    private static final String LOGO =
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";

    private static MimeBodyPart holding(MimeMultipart parts) throws Exception {
        MimeBodyPart part = new MimeBodyPart();
        part.setContent(parts);
        return part;
    }

    public static void main(String[] arguments) throws Exception {
        // File names beyond ASCII as RFC 2231 writes them; on by default in newer versions.
        System.setProperty("mail.mime.encodeparameters", "true");
        Properties properties = new Properties();
        properties.put("mail.smtp.host", arguments[0]);
        properties.put("mail.smtp.port", arguments[1]);
        String link = "https://shop.example.com/reset/" + arguments[2] + "/";

        MimeBodyPart text = new MimeBodyPart();
        text.setText("Hello,\n\nNaïve question: was it you who asked for a new password? Follow this link:\n\n    "
            + link + "\n", "UTF-8");
        MimeBodyPart html = new MimeBodyPart();
        html.setContent("<p><img src=\"cid:logo\" alt=\"Café Exämple\"></p>\n<p><a href=\"" + link
            + "\">Choose a new password</a> – or don't.</p>\n", "text/html; charset=UTF-8");
        MimeBodyPart logo = new MimeBodyPart();
        logo.setDataHandler(new DataHandler(new ByteArrayDataSource(Base64.getDecoder().decode(LOGO), "image/png")));
        logo.setFileName("logo.png");
        logo.setDisposition(Part.INLINE);
        logo.setContentID("<logo>");
        MimeBodyPart file = new MimeBodyPart();
        byte[] pdf = "%PDF-1.4\nnot really one\n".getBytes("US-ASCII");
        file.setDataHandler(new DataHandler(new ByteArrayDataSource(pdf, "application/pdf")));
        file.setFileName("résumé.pdf");

        MimeMultipart alternative = new MimeMultipart("alternative", text, html);
        MimeMultipart related = new MimeMultipart("related", holding(alternative), logo);
        MimeMessage message = new MimeMessage(Session.getInstance(properties));
        message.setFrom(new InternetAddress("app@example.com", "Café Exämple", "UTF-8"));
        message.setRecipients(Message.RecipientType.TO, "user@example.com");
        message.setSubject("Café Exämple: choose a new password ✓", "UTF-8");
        message.setSentDate(new java.util.Date());
        message.setContent(new MimeMultipart("mixed", holding(related), file));
        Transport.send(message);
    }
}
