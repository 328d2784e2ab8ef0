"""What a process of ours gives up before it touches what strangers wrote."""
