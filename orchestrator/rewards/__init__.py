"""Who says how good a response is: the reward service and its client, and a frozen critique reward model."""
