"""Write the shared vectors of tests/wire/vectors.json as tables in C."""

from __future__ import annotations

import json
import math
from typing import Any

from native import ROOT

from penstock_client import wire
from penstock_client.wire import Kind

VECTORS: dict[str, Any] = json.loads((ROOT / "tests" / "wire" / "vectors.json").read_text())


def c_bytes(raw: bytes) -> str:
    """A string literal; octal escapes, since a hexadecimal one would swallow the digits after it."""
    return '"' + "".join(f"\\{byte:03o}" for byte in raw) + '"'


def c_text(text: str) -> str:
    return c_bytes(text.encode())


def c_double(value: Any) -> str:
    number = float(value)
    return "NAN" if math.isnan(number) else "INFINITY" if math.isinf(number) else number.hex()


def c_array(kind: str, items: list[str]) -> str:
    """A compound literal; never empty, which C does not allow."""
    return f"({kind}[]){{{', '.join(items) or '0'}}}"


def c_header(h: dict[str, Any]) -> str:
    dtype = wire.Dtype[h["dtype"].upper()].value
    signed = {name: f"INT64_C({h[name]})" for name in ("simulation", "step")}
    unsigned = {name: f"UINT64_C({h[name]})" for name in ("offset", "count")}
    return (
        f"{{.kind = {Kind[h['kind']].value}, .dtype = {dtype}, .incarnation = {h['incarnation']}u, "
        f".attempt = {h['attempt']}u, .simulation = {signed['simulation']}, .step = {signed['step']}, "
        f".field = {h['field']}u, .rank = {h['rank']}u, .offset = {unsigned['offset']}, .count = {unsigned['count']}, "
        f".time = {c_double(h['time'])}}}"
    )


def c_values(kind: str, v: dict[str, Any]) -> str:
    """A pointer to the struct in which clients/c/tests/vectors.c keeps a payload's values."""
    if kind == "HELLO":
        return f"&(hello_values){{(const uint8_t *){c_bytes(bytes.fromhex(v['client']))}, {v['pid']}u, {c_text(v['host'])}}}"
    if kind == "WELCOME":
        texts = {
            name: c_array("char *", [c_text(t) for t in v[name]]) for name in ("rank_endpoints", "parameters", "fields")
        }
        return (
            f"&(pnsk_welcome){{{v['heartbeat_ms']}u, {v['server_timeout_ms']}u, UINT64_C({v['credit_bytes']}), "
            f"{v['coalesce_bytes']}u, {v['coalesce_ms']}u, {int(v['pin_simulations'])}, {len(v['rank_endpoints'])}, "
            f"{len(v['parameters'])}, {len(v['fields'])}, {texts['rank_endpoints']}, {texts['parameters']}, "
            f"{texts['fields']}, {c_text(v['solver'])}}}"
        )
    if kind == "ASSIGN":
        values = c_array("double", [c_double(x) for x in v["parameters"]])
        return f"&(pnsk_assign){{{int(v['validation'])}, {len(v['parameters'])}, {values}}}"
    if kind == "ANNOUNCE":
        fields = [
            f"{{{c_text(f['name'])}, {wire.Dtype[f['dtype'].upper()].value}, {f['components']}u, {len(f['shape'])}u, "
            f"{c_array('uint64_t', [f'UINT64_C({n})' for n in f['shape']])}, {int(f['static'])}}}"
            for f in v["fields"]
        ]
        return f"&(announce_values){{{len(fields)}, {c_array('penstock_field', fields)}}}"
    if kind == "ACCEPT":
        ids = c_array("uint32_t", [f"{i}u" for i in v["ids"]])
        return f"&(pnsk_accept){{{len(v['ids'])}, {ids}, {c_array('bool', [str(int(w)) for w in v['wanted']])}}}"
    if kind == "BEGIN":
        values = c_array("double", [c_double(x) for x in v["parameters"]])
        return f"&(begin_values){{{v['ranks']}u, {len(v['parameters'])}u, {values}}}"
    if kind == "STREAMED":
        return f"&(pnsk_streamed){{{', '.join(f'UINT64_C({v[n]})' for n in ('accepted', 'duplicates', 'refused'))}}}"
    if kind == "FINISH":
        return (
            f"&(finish_values){{{v['outcome']}, {v['ranks']}u, {v['steps']}u, {c_double(v['blocked_seconds'])}, "
            f"{c_text(v['message'])}}}"
        )
    if kind == "ALIVE":
        return f"&(bool){{{int(v['abandon'])}}}"
    if kind == "SHARE":
        boot, token = (c_array("uint8_t", list(map(str, bytes.fromhex(v[name])))) for name in ("boot", "token"))
        boot, token = (text.removeprefix("(uint8_t[])") for text in (boot, token))
        return f"&(pnsk_share){{{boot}, {v['pid']}u, {v['descriptor']}u, UINT64_C({v['size']}), {token}}}"
    assert kind == "REFUSE"
    return f"&(pnsk_refuse){{{v['reason']}u, {c_text(v['text'])}}}"


MESSAGES = VECTORS["messages"]
RECEIVED = {"WELCOME", "ASSIGN", "ACCEPT", "STREAMED", "ALIVE", "REFUSE"}


def vectors_header() -> str:
    """tests/wire/vectors.json as C tables."""

    def raw(text: str) -> str:
        data = bytes.fromhex(text)
        return f"{{(const uint8_t *){c_bytes(data)}, {len(data)}}}"

    lines = ["#include <math.h>", "static const header_vector headers[] = {"]
    lines += [f"    {{{c_text(m['name'])}, {c_header(m['header'])}, {raw(m['header_hex'])}}}," for m in MESSAGES]
    lines += ["};", "static const struct { const char *name; bool version; bytes raw; } invalid_headers[] = {"]
    lines += [
        f"    {{{c_text(i['name'])}, {int(i['error'] == 'version')}, {raw(i['hex'])}}},"
        for i in VECTORS["invalid_headers"]
    ]
    lines += ["};", "static const payload_vector payloads[] = {"]
    for m in MESSAGES:
        kind = m["header"]["kind"]
        if "payload" in m:
            values = c_values(kind, m["payload"])
            lines.append(f"    {{{c_text(m['name'])}, {Kind[kind].value}, {raw(m['payload_hex'])}, {values}}},")
    for i in VECTORS["invalid_payloads"]:
        if i["kind"] in RECEIVED:
            lines.append(f"    {{{c_text(i['name'])}, {Kind[i['kind']].value}, {raw(i['hex'])}, NULL}},")
    lines += ["};", "static const reference_vector references[] = {"]
    for r in VECTORS["references"]:
        place = f"UINT64_C({r['reference']['offset']}), UINT64_C({r['reference']['size']})"
        lines.append(
            f"    {{{c_text(r['name'])}, {c_header(r['header'])}, {raw(r['header_hex'])}, {place}, {raw(r['payload_hex'])}}},"
        )
    return "\n".join([*lines, "};", ""])
