"""Networks beside the deep resistive one, and what each is for; all take the calls of `epkit.ep.networks.Network`."""
