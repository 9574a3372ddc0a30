# Verifies the messages named on standard input, one file a line, by Mail::DKIM, asking one name server for the keys.
# Usage: perl mail_dkim.pl PORT; prints one JSON object a message.
use strict;
use warnings;
use JSON::PP;
use Mail::DKIM::DNS;
use Mail::DKIM::Verifier;
use Net::DNS::Resolver;

my $port = shift @ARGV;
Mail::DKIM::DNS::resolver(
    Net::DNS::Resolver->new(nameservers => ['127.0.0.1'], port => $port, recurse => 1, retry => 2, udp_timeout => 5));
$| = 1;
while (my $path = <STDIN>) {
    chomp $path;
    my @signatures;
    my $trouble = '';
    eval {
        open(my $file, '<:raw', $path) or die "$path: $!";
        local $/;
        my $verifier = Mail::DKIM::Verifier->new();
        $verifier->PRINT(<$file>);
        $verifier->CLOSE();
        @signatures = map { {
            domain => $_->domain // '', selector => $_->selector // '', algorithm => $_->algorithm // '',
            result => $_->result // 'none', detail => $_->result_detail // '' } } $verifier->signatures;
        1;
    } or $trouble = "$@";
    print encode_json({ path => $path, signatures => \@signatures, trouble => $trouble }), "\n";
}
