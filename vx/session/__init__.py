"""Export sessions: what they are allowed to do (`lifecycle`), who runs them (`registry`), when they end by themselves
(`deadlines`), and where they are remembered (`store`)."""
