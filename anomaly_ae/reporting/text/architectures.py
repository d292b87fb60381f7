"""What there is to choose from."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from anomaly_ae.reporting.text.phrases import times
from anomaly_ae.runtime.tables import columns

if TYPE_CHECKING:
    from anomaly_ae.autoencoders.summary import Architecture, Summary


def listed(entries: Mapping[str, str]) -> str:
    width = max(map(len, entries))
    return "\n".join(f"{name:<{width}}  {about}" for name, about in entries.items())


def autoencoders(result: "Mapping[str, list[Summary]]") -> str:
    head = ("name", "family", "images", "encoder", "decoder", "latent", "what it is", "where from")
    lines = [
        (
            *(row.name, row.family, times(row.image_shape)),
            *(f"{row.encoder_parameters:,}", f"{row.decoder_parameters:,}", times(row.latent_shape)),
            *(row.about, row.origin),
        )
        for row in result["autoencoders"]
    ]
    return "\n".join([*columns([head, *lines], right=(3, 4)), "", "one layer by layer: anomaly-ae autoencoders NAME"])


def layers(result: "Architecture") -> str:
    head = ("", "layer", "output shape", "parameters")
    lines = [(row.part, row.layer, times(row.output_shape), f"{row.parameters:,}") for row in result.layers]
    encoder, decoder = result.encoder_parameters, result.decoder_parameters
    return "\n".join(
        [
            f"{result.name} ({result.family}): {result.about}; from: {result.origin}",
            f"images {times(result.image_shape)}, latent {times(result.latent_shape)}",
            "",
            *columns([head, *lines], right=(3,)),
            "",
            f"parameters: encoder {encoder:,} + decoder {decoder:,} = {encoder + decoder:,}",
        ]
    )
