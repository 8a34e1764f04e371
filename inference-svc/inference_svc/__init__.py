"""The local inference service: a Transformers model behind plain HTTP and the OpenAI API."""
