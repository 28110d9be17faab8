/**
 * Reading the protobuf form of requests: `kubectl create namespace` and `create configmap` (1.32) and typed clients set
 * to it send nothing else. Answers are always JSON, which such clients accept.
 *
 * Source: apimachinery runtime/serializer/protobuf (the "k8s\0" envelope), meta/v1 and core/v1 generated.proto (field
 * numbers), protobuf's encoding guide.
 */
import { badRequest } from './statuses.ts';

export interface ProtoField {
  name: string;
  type: 'string' | 'int' | 'bool' | 'bytes' | 'time' | ProtoMessage;
  repeated?: true;
  /** A map of texts to `type`. */
  map?: true;
}
/** Fields by number. */
export type ProtoMessage = Readonly<Record<number, ProtoField>>;

const text = (name: string): ProtoField => ({ name, type: 'string' });
const flag = (name: string): ProtoField => ({ name, type: 'bool' });
const texts = (name: string): ProtoField => ({ name, type: 'string', repeated: true });
const textMap = (name: string): ProtoField => ({ name, type: 'string', map: true });

const OWNER_REFERENCE: ProtoMessage = {
  1: text('kind'),
  3: text('name'),
  4: text('uid'),
  5: text('apiVersion'),
  6: flag('controller'),
  7: flag('blockOwnerDeletion'),
};

const OBJECT_META: ProtoMessage = {
  1: text('name'),
  2: text('generateName'),
  3: text('namespace'),
  5: text('uid'),
  6: text('resourceVersion'),
  7: { name: 'generation', type: 'int' },
  8: { name: 'creationTimestamp', type: 'time' },
  9: { name: 'deletionTimestamp', type: 'time' },
  10: { name: 'deletionGracePeriodSeconds', type: 'int' },
  11: textMap('labels'),
  12: textMap('annotations'),
  13: { name: 'ownerReferences', type: OWNER_REFERENCE, repeated: true },
  14: texts('finalizers'),
};

const metadata: ProtoField = { name: 'metadata', type: OBJECT_META };

export const NAMESPACE_PROTO: ProtoMessage = {
  1: metadata,
  2: { name: 'spec', type: { 1: texts('finalizers') } },
  3: { name: 'status', type: { 1: text('phase') } },
};

export const CONFIG_MAP_PROTO: ProtoMessage = {
  1: metadata,
  2: textMap('data'),
  3: { name: 'binaryData', type: 'bytes', map: true },
  4: flag('immutable'),
};

export const LEASE_PROTO: ProtoMessage = {
  1: metadata,
  2: {
    name: 'spec',
    type: {
      1: text('holderIdentity'),
      2: { name: 'leaseDurationSeconds', type: 'int' },
      3: { name: 'acquireTime', type: 'time' },
      4: { name: 'renewTime', type: 'time' },
      5: { name: 'leaseTransitions', type: 'int' },
      6: text('strategy'),
      7: text('preferredHolder'),
    },
  },
};

export const DELETE_OPTIONS_PROTO: ProtoMessage = {
  1: { name: 'gracePeriodSeconds', type: 'int' },
  2: { name: 'preconditions', type: { 1: text('uid'), 2: text('resourceVersion') } },
  3: flag('orphanDependents'),
  4: text('propagationPolicy'),
  5: texts('dryRun'),
};

/** runtime.Unknown: what the envelope holds. */
const ENVELOPE: ProtoMessage = {
  1: { name: 'typeMeta', type: { 1: text('apiVersion'), 2: text('kind') } },
  2: { name: 'raw', type: 'bytes' },
};
const MAGIC = Buffer.from('k8s\0', 'latin1');
const MAX_DEPTH = 20;

/** The object in an enveloped body, as JSON. Throws a 400. */
export function decodeProtobuf(body: Buffer, message: ProtoMessage): Record<string, unknown> {
  if (!body.subarray(0, 4).equals(MAGIC)) throw badRequest('the body is not in Kubernetes’ protobuf form');
  const envelope = readMessage(body.subarray(4), ENVELOPE, 0) as {
    typeMeta?: { apiVersion?: string; kind?: string };
    raw?: string;
  };
  const object = readMessage(Buffer.from(envelope.raw ?? '', 'base64'), message, 0);
  return { ...envelope.typeMeta, ...object };
}

class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get done(): boolean {
    return this.#at >= this.#bytes.length;
  }

  /** Signed 64 bits; beyond 2^53 no field of ours has a meaning. */
  varint(): number {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.#bytes[this.#at++];
      if (byte === undefined) throw badRequest('the protobuf body is cut off');
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return Number(BigInt.asIntN(64, value));
    }
    throw badRequest('the protobuf body has an overlong number');
  }

  bytes(length: number): Buffer {
    if (length < 0 || this.#at + length > this.#bytes.length)
      throw badRequest('the protobuf body is cut off');
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }
}

function readMessage(bytes: Buffer, message: ProtoMessage, depth: number): Record<string, unknown> {
  if (depth > MAX_DEPTH) throw badRequest('the protobuf body is nested too deep');
  const reader = new Reader(bytes);
  const result: Record<string, unknown> = {};
  while (!reader.done) {
    const tag = reader.varint();
    const wire = tag & 7;
    const field = message[tag >>> 3];
    let value: number | Buffer;
    if (wire === 0) value = reader.varint();
    else if (wire === 1) value = reader.bytes(8);
    else if (wire === 2) value = reader.bytes(reader.varint());
    else if (wire === 5) value = reader.bytes(4);
    else throw badRequest(`the protobuf body has wire type ${wire}`);
    if (field) store(result, field, value, depth);
  }
  return result;
}

function store(
  result: Record<string, unknown>,
  field: ProtoField,
  value: number | Buffer,
  depth: number,
): void {
  const { name, type } = field;
  if (field.map) {
    const entry = readMessage(asBytes(value), { 1: text('key'), 2: { name: 'value', type } }, depth + 1);
    if (entry.key === '__proto__') throw badRequest('a member named __proto__ is not allowed');
    result[name] ??= {};
    (result[name] as Record<string, unknown>)[String(entry.key ?? '')] = entry.value ?? '';
    return;
  }
  const converted = convert(value, type, depth);
  if (field.repeated) {
    result[name] ??= [];
    (result[name] as unknown[]).push(converted);
    return;
  }
  // Go writes empty texts and zero times for what is absent in JSON.
  if (converted !== undefined && converted !== '') result[name] = converted;
}

function convert(value: number | Buffer, type: ProtoField['type'], depth: number): unknown {
  if (type === 'int' || type === 'bool') {
    if (typeof value !== 'number') throw badRequest('the protobuf body has bytes in place of a number');
    return type === 'bool' ? value !== 0 : value;
  }
  const bytes = asBytes(value);
  if (type === 'string') return bytes.toString('utf8');
  if (type === 'bytes') return bytes.toString('base64');
  if (type !== 'time') return readMessage(bytes, type, depth + 1);
  const { seconds, nanos } = readMessage(
    bytes,
    { 1: { name: 'seconds', type: 'int' }, 2: { name: 'nanos', type: 'int' } },
    depth,
  ) as {
    seconds?: number;
    nanos?: number;
  };
  if (seconds === undefined) return undefined;
  const ms = seconds * 1000 + (nanos ?? 0) / 1e6;
  if (!(Math.abs(ms) < 8.64e15)) throw badRequest('the protobuf body has a time out of range');
  return new Date(ms).toISOString();
}

function asBytes(value: number | Buffer): Buffer {
  if (typeof value === 'number') throw badRequest('the protobuf body has a number in place of bytes');
  return value;
}
