"""Export sessions: what they are allowed to do (`lifecycle`), who runs them (`registry`, with a worker: `work`), whose
turn it is (`turns`), what they may take of the disk (`budget`), where their files go (`folders`, `delivery`), when they
end by themselves (`deadlines`), where they are remembered (`store`; `audit` reads who did what), and what becomes of
the recordings that results are served from (`leases`, `watch`, `absorbing`)."""
