"""The settings that all private Postfixes share (postconf(5), master(5)); where their files lie is for `postfix`."""

from __future__ import annotations

# All mail is relayed to the sink; nobody is slowed down, and nothing asks DNS.
MAIN_CF = {
    "mail_owner": "postfix",
    "setgid_group": "postdrop",
    "myorigin": "example.com",
    "mydestination": "",
    "local_recipient_maps": "",
    "alias_maps": "",
    "alias_database": "",
    "mynetworks": "127.0.0.0/8",
    "inet_interfaces": "127.0.0.1",
    "inet_protocols": "ipv4",
    "smtp_dns_support_level": "disabled",
    "smtpd_peername_lookup": "yes",
    "smtp_host_lookup": "native",
    "smtp_tls_security_level": "none",
    "smtpd_relay_restrictions": "permit_mynetworks, permit_sasl_authenticated, reject",
    "smtpd_sasl_auth_enable": "yes",
    "smtpd_sasl_path": "smtpd",
    "smtpd_tls_security_level": "may",
    "smtpd_tls_ask_ccert": "yes",
    "smtpd_tls_loglevel": "1",
    "tls_random_source": "dev:/dev/urandom",
    "smtpd_client_connection_count_limit": "0",
    "smtpd_error_sleep_time": "0",
    "smtpd_hard_error_limit": "1000",
    "smtpd_soft_error_limit": "1000",
    "smtpd_recipient_limit": "2000",
    "default_destination_recipient_limit": "2000",
    "default_process_limit": "100",
    "message_size_limit": "104857600",
    "mailbox_size_limit": "0",
    "enable_long_queue_ids": "yes",
    "milter_connect_timeout": "10s",
    "biff": "no",
}

QUEUES = (
    "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace",
)  # fmt: skip

# Debian's master.cf without smtpd, and with chroot off: a lab has no copies of libraries in its queue directory.
MASTER_CF = """\
pickup     unix  n  -  n  60    1  pickup
cleanup    unix  n  -  n  -     0  cleanup
qmgr       unix  n  -  n  300   1  qmgr
tlsmgr     unix  -  -  n  1000? 1  tlsmgr
rewrite    unix  -  -  n  -     -  trivial-rewrite
bounce     unix  -  -  n  -     0  bounce
defer      unix  -  -  n  -     0  bounce
trace      unix  -  -  n  -     0  bounce
verify     unix  -  -  n  -     1  verify
flush      unix  n  -  n  1000? 0  flush
proxymap   unix  -  -  n  -     -  proxymap
proxywrite unix  -  -  n  -     1  proxymap
smtp       unix  -  -  n  -     -  smtp
relay      unix  -  -  n  -     -  smtp
showq      unix  n  -  n  -     -  showq
error      unix  -  -  n  -     -  error
retry      unix  -  -  n  -     -  error
discard    unix  -  -  n  -     -  discard
lmtp       unix  -  -  n  -     -  lmtp
anvil      unix  -  -  n  -     1  anvil
scache     unix  -  -  n  -     1  scache
postlog    unix-dgram n - n -   1  postlogd"""
