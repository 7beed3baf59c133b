"""What `bluesky-jit doctor` looks at; each check looks, changes nothing, and says what to do in a line."""
