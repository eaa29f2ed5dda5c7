"""When a request may leave: gate, learner and width; knows neither HTTP nor ledger."""
