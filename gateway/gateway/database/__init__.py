"""The gateway's database: its tables, and how it is opened and brought up to date."""
