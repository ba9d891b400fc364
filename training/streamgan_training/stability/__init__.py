"""Consistency in time: terms, flow, warps, predictors, a discriminator of clips."""
