"""Who says whether a reasoning and its answer agree: fixed rules, or a model behind an OpenAI-compatible endpoint."""
