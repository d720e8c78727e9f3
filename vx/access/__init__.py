"""Who may come in: users and their passwords, tokens, and how often anybody may guess.

`gate` answers the two questions that the server has: who makes this call, and is this login right. It rests on `tokens`
(what a login is worth, and for how long), `passwords` (checked by a helper process, `hashing`), and `lockout` (pure:
who is held off after failures, by `networks`).
"""
