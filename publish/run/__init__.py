"""Steps in parallel, progress, what is left to do: where the stages are put together."""
