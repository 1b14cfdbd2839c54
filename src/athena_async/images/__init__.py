"""From what a caller hands in to what is sent: recognise, hash, decode, orient, resize, encode."""
