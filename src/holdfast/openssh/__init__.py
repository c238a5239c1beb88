"""All that is known of OpenSSH, in pure standard library; imports nothing outside itself."""
