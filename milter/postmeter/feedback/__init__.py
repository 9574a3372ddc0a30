"""What came back: bounces, complaints, automatic replies, read and told apart."""
