<?php

// Sends one e-mail as an application with PHPMailer does; prints what the server says.
//
//     phpmailer.php PORT TEXT KEY SENT    (SENT is written: what PHPMailer made)
//     phpmailer.php                       (prints the version)

use PHPMailer\PHPMailer\PHPMailer;
use PHPMailer\PHPMailer\SMTP;

// Where Debian's libphp-phpmailer puts it.
require 'libphp-phpmailer/autoload.php';

if ($argc === 1) {
    echo PHPMailer::VERSION, "\n";
    exit;
}
[, $port, $text, $key, $sent] = $argv;

$mail = new PHPMailer(true);
$mail->isSMTP();
$mail->Host = '127.0.0.1';
$mail->Port = (int) $port;
// It tells the reply in no other way.
$mail->SMTPDebug = SMTP::DEBUG_SERVER;
$mail->CharSet = PHPMailer::CHARSET_UTF8;
$mail->setFrom('app@a.test');
$mail->addAddress('ann@b.test');
$mail->Subject = $key;
$mail->addCustomHeader('X-Idempotency-Key', $key);
$mail->Body = file_get_contents($text);
$mail->send();
file_put_contents($sent, $mail->getSentMIMEMessage());
