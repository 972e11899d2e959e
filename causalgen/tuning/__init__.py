"""The strength of guidance chosen on validation rows, by counterfactual latent divergence."""

__all__: list[str] = []
