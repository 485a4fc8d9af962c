"""Coded errors of model configurations, specifications and traces."""

from __future__ import annotations

from treadle.ir.diagnostics import TreadleError


class UnknownArchitecture(TreadleError):
    """A `config.json` of an architecture that treadle has no frontend for."""

    code = "TRD121"
    template = "unknown model architecture `{name}`"
    hint = "nearest known: {nearest}"


class UnsupportedModel(TreadleError):
    """A model of a known family with a part that the graph cannot express."""

    code = "TRD122"
    template = "{feature} is not supported for `{family}` models"
    hint = "report the configuration; the rest of the family works"


class UnknownQuantization(TreadleError):
    """A quantization that treadle does not know the bytes of."""

    code = "TRD123"
    template = "unknown quantization `{method}`"
    hint = "give weight_dtype in the specification, or remove quantization_config"


class MalformedTrace(TreadleError):
    """A line of a request trace that does not follow the format."""

    code = "TRD124"
    template = "{message}"
    hint = "formats: azure-2023 (TIMESTAMP,ContextTokens,GeneratedTokens), mooncake (JSON lines)"


class EmptyTrace(TreadleError):
    """A request trace without requests."""

    code = "TRD125"
    template = "the trace holds no requests"
    hint = "check the path; a header alone is not a trace"


class BadSpecification(TreadleError):
    """A specification whose fields contradict each other."""

    code = "TRD126"
    template = "{message}"


class NoGpusThere(TreadleError):
    """A cluster dump without a free GPU of the type asked for."""

    code = "TRD145"
    template = "the cluster has no free GPU `{gpu}`: {found}"
    hint = "name the type by a machine of `treadle machines`, or free GPUs; `nvidia.com/gpu.product` tells types apart"
