"""OpenAI's API, as far as several services read it."""
