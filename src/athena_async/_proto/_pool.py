"""The descriptor pool that holds Athena's messages, apart from protobuf's default pool.

The official client registers files of the same names in the default pool, and
its releases differ in their content: sharing that pool would make one of the
two packages fail at import. See docs/adr/0002-private-descriptor-pool.md.
"""

from google.protobuf import descriptor_pool, empty_pb2

POOL = descriptor_pool.DescriptorPool()
POOL.AddSerializedFile(empty_pb2.DESCRIPTOR.serialized_pb)
