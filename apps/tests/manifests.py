"""Checks objects of Kubernetes, a JSON list on standard input, against the models of Debian's python3-kubernetes.

The models are generated from the API's OpenAPI schema. A field that a model does not have, a value of another type and a
required field that is absent are errors. Prints the kinds that were checked; the API groups that are newer than the
package are left out.
"""

import json
import re
import sys

from kubernetes import client

MODELS = {
    ("v1", "Namespace"): client.V1Namespace,
    ("v1", "Pod"): client.V1Pod,
    ("apps/v1", "DaemonSet"): client.V1DaemonSet,
    ("batch/v1", "Job"): client.V1Job,
}
PLAIN = {"str": str, "int": int, "bool": bool, "float": float, "object": object}


def read(value, kind, path):
    """Returns `value` as an instance of the type of that name in the models."""
    if match := re.fullmatch(r"list\[(.*)\]", kind):
        expect(value, list, path)
        return [read(item, match[1], f"{path}[{at}]") for at, item in enumerate(value)]
    if match := re.fullmatch(r"dict\(str, (.*)\)", kind):
        expect(value, dict, path)
        return {key: read(item, match[1], f"{path}.{key}") for key, item in value.items()}
    if kind in PLAIN:
        expect(value, PLAIN[kind], path)
        return value
    return build(value, getattr(client, kind), path)


def expect(value, kind, path):
    # A boolean is an integer to Python, and not to Kubernetes.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        sys.exit(f"{path} is {value!r}, not of type {kind.__name__}")


def build(value, model, path):
    """Returns an object of `model`, whose constructor refuses absent required fields and values out of range."""
    expect(value, dict, path)
    names = {name: attribute for attribute, name in model.attribute_map.items()}
    arguments = {}
    for name, item in value.items():
        if name not in names:
            sys.exit(f"{path}.{name} is no field of {model.__name__}")
        arguments[names[name]] = read(item, model.openapi_types[names[name]], f"{path}.{name}")
    try:
        return model(**arguments)
    except ValueError as error:
        sys.exit(f"{path}: {error}")


for document in json.load(sys.stdin):
    model = MODELS.get((document["apiVersion"], document["kind"]))
    if model:
        build(document, model, document["kind"])
        print(document["kind"])
