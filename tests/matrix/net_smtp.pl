# Sends one e-mail with Perl's Net::SMTP; prints the reply.
#
#     net_smtp.pl PORT FILE
#     net_smtp.pl              (prints the version)

use strict;
use warnings;
use Net::SMTP;

my ($port, $file) = @ARGV;
if (!defined $port) {
    print Net::SMTP->VERSION, "\n";
    exit;
}
open my $mail, '<:raw', $file or die "$file: $!";
my $smtp = Net::SMTP->new('127.0.0.1', Port => $port, Hello => 'client.test', Timeout => 30) or die "no server: $@";
my $done = $smtp->mail('app@a.test', Bits => '8') && $smtp->to('ann@b.test') && $smtp->data;
while ($done && defined(my $line = <$mail>)) {
    $done = $smtp->datasend($line);
}
$done &&= $smtp->dataend;
print $smtp->code, ' ', $smtp->message;
$smtp->quit;
exit !$done;
