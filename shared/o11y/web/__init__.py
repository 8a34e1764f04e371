"""The application factory, its middleware, errors as answers, event streams."""
