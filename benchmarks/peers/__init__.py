"""Published peers run beside causalgen: workers that import the authors' code from a checkout of it."""
