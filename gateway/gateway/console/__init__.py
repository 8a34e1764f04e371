"""The console: pages for people who would rather look than read, at the gateway's root."""
