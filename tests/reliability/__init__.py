"""What happens when things die, hang or fill up; a package, so that Ray heads end with its last test."""
