<?php

// Sends one e-mail as an application with PHPMailer does.
//
//     phpmailer.php HOST PORT TOKEN

use PHPMailer\PHPMailer\PHPMailer;

// Where Debian's libphp-phpmailer puts it.
require 'libphp-phpmailer/autoload.php';

const LOGO = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==';
[, $host, $port, $token] = $argv;
$link = "https://shop.example.com/reset/$token/";

$mail = new PHPMailer(true);
$mail->isSMTP();
$mail->Host = $host;
$mail->Port = (int) $port;
$mail->SMTPAutoTLS = false;
$mail->CharSet = PHPMailer::CHARSET_UTF8;
$mail->setFrom('app@example.com', 'Café Exämple');
$mail->addAddress('user@example.com');
$mail->Subject = 'Café Exämple: choose a new password ✓';
$mail->isHTML();
$mail->Body = "<p><img src=\"cid:logo\" alt=\"Café Exämple\"></p>\n<p><a href=\"$link\">Choose a new password</a> – or don't.</p>\n";
$mail->AltBody = "Hello,\n\nNaïve question: was it you who asked for a new password? Then follow this link:\n\n    $link\n";
$mail->addStringEmbeddedImage(base64_decode(LOGO), 'logo', 'logo.png');
$mail->addStringAttachment("%PDF-1.4\nnot really one\n", 'résumé.pdf');
$mail->send();
