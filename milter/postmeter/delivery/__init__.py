"""What Postfix's log tells of mail that was taken: its lines, and the lives of messages put together from them."""
