"""The LLM proxy: the OpenAI API in front of a provider, with the cost of each call."""
