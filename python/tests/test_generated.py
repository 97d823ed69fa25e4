"""The committed code of the wire is that of ../proto, where that and the compiler are."""

from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from soup_judge._wire import judge_pb2

PROTO = Path(__file__).parents[2] / "proto"
NAME = "soup/judge/v1/judge.proto"


@pytest.mark.skipif(not (PROTO / NAME).is_file(), reason="not in a checkout of the whole project")
def test_generated_code_is_up_to_date(tmp_path):
    protoc = pytest.importorskip("grpc_tools.protoc")
    out = tmp_path / "set"
    assert protoc.main(["protoc", f"--proto_path={PROTO}", f"--descriptor_set_out={out}", NAME]) == 0
    (proto,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    # What the messages are is compared, not the generated text: that depends on the compiler's version.
    for field in (
        field for message in proto.message_type for each in (message, *message.nested_type) for field in each.field
    ):
        field.ClearField("json_name")
    committed = descriptor_pb2.FileDescriptorProto()
    judge_pb2.DESCRIPTOR.CopyToProto(committed)
    assert committed == proto, "run python/generate"
