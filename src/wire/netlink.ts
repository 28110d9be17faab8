/**
 * Netlink messages: the header, the attributes, and what the kernel answers (include/uapi/linux/netlink.h).
 *
 * Numbers are in host byte order, which on every platform that Node runs on is little endian; addresses and what nfnetlink
 * calls big endian are written by {@link NlWriter.attrU16be} and {@link NlWriter.attrU32be}.
 *
 * Reading never trusts a length: whatever the bytes are, it ends, and malformed ones are WEFT_NETLINK_MALFORMED.
 */
import { WeftError } from '../base/errors.ts';

export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;
export const NLMSG_OVERRUN = 4;

export const NLM_F_REQUEST = 0x1;
export const NLM_F_ACK = 0x4;
export const NLM_F_ECHO = 0x8;
/** The dump was changed while it ran: do it again. */
export const NLM_F_DUMP_INTR = 0x10;
export const NLM_F_DUMP = 0x300;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLM_F_APPEND = 0x800;
/** In an answer: the request is not repeated behind the errno (NETLINK_CAP_ACK). */
export const NLM_F_CAPPED = 0x100;
/** In an answer: attributes of explanation follow. */
export const NLM_F_ACK_TLVS = 0x200;

export const NLA_F_NESTED = 0x8000;
const NLA_TYPE_MASK = 0x3fff;

export const NLMSG_HEADER = 16;
const NLA_HEADER = 4;
const align = (n: number): number => (n + 3) & ~3;
const utf8 = new TextDecoder();
const toUtf8 = new TextEncoder();

export function malformed(what: string, bytes?: Uint8Array): WeftError {
  const details = bytes ? { bytes: Buffer.from(bytes.subarray(0, 256)).toString('hex') } : {};
  return new WeftError('WEFT_NETLINK_MALFORMED', `malformed netlink message: ${what}`, { details });
}

/** Builds one message. Sequence number and port id are filled in by the socket that sends it. */
export class NlWriter {
  #bytes = new Uint8Array(256);
  #view = new DataView(this.#bytes.buffer);
  #length = NLMSG_HEADER;

  constructor(type: number, flags: number) {
    this.#view.setUint16(4, type, true);
    this.#view.setUint16(6, flags, true);
  }

  /** Room for `more` bytes, zeroed; returns where they begin. */
  #reserve(more: number): number {
    const at = this.#length;
    const end = at + more;
    if (end > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(end, this.#bytes.length * 2));
      grown.set(this.#bytes.subarray(0, at));
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    this.#length = end;
    return at;
  }

  // --- the fixed part, in order, before any attribute ---

  u8(value: number): this {
    const at = this.#reserve(1);
    this.#view.setUint8(at, value);
    return this;
  }

  u16(value: number): this {
    const at = this.#reserve(2);
    this.#view.setUint16(at, value, true);
    return this;
  }

  u16be(value: number): this {
    const at = this.#reserve(2);
    this.#view.setUint16(at, value);
    return this;
  }

  u32(value: number): this {
    const at = this.#reserve(4);
    this.#view.setUint32(at, value, true);
    return this;
  }

  /** Bytes as they are, without a header of their own. */
  raw(bytes: Uint8Array): this {
    const at = this.#reserve(bytes.length);
    this.#bytes.set(bytes, at);
    return this;
  }

  /** Zero bytes up to the next multiple of four, as a fixed part that ends unevenly needs. */
  pad(): this {
    this.#reserve(align(this.#length) - this.#length);
    return this;
  }

  // --- attributes ---

  #attr(type: number, length: number): number {
    if (NLA_HEADER + length > 0xffff) {
      throw new WeftError(
        'WEFT_INTERNAL',
        `netlink attribute ${type & NLA_TYPE_MASK} of ${length} bytes does not fit`,
      );
    }
    const at = this.#reserve(NLA_HEADER + align(length));
    this.#view.setUint16(at, NLA_HEADER + length, true);
    this.#view.setUint16(at + 2, type, true);
    return at + NLA_HEADER;
  }

  attr(type: number, bytes: Uint8Array): this {
    const at = this.#attr(type, bytes.length);
    this.#bytes.set(bytes, at);
    return this;
  }

  /** An attribute without a value: its presence says it. */
  attrFlag(type: number): this {
    this.#attr(type, 0);
    return this;
  }

  attrU8(type: number, value: number): this {
    const at = this.#attr(type, 1);
    this.#view.setUint8(at, value);
    return this;
  }

  attrU16(type: number, value: number): this {
    const at = this.#attr(type, 2);
    this.#view.setUint16(at, value, true);
    return this;
  }

  attrU16be(type: number, value: number): this {
    const at = this.#attr(type, 2);
    this.#view.setUint16(at, value);
    return this;
  }

  attrU32(type: number, value: number): this {
    const at = this.#attr(type, 4);
    this.#view.setUint32(at, value, true);
    return this;
  }

  attrU32be(type: number, value: number): this {
    const at = this.#attr(type, 4);
    this.#view.setUint32(at, value);
    return this;
  }

  attrU64(type: number, value: bigint): this {
    const at = this.#attr(type, 8);
    this.#view.setBigUint64(at, value, true);
    return this;
  }

  attrU64be(type: number, value: bigint): this {
    const at = this.#attr(type, 8);
    this.#view.setBigUint64(at, value);
    return this;
  }

  /** Text with its closing zero byte. */
  attrString(type: number, text: string): this {
    const bytes = toUtf8.encode(text);
    const at = this.#attr(type, bytes.length + 1);
    this.#bytes.set(bytes, at);
    return this;
  }

  /** Attributes within an attribute. `flag` is NLA_F_NESTED, which some old families must go without (0). */
  nest(type: number, write: (w: this) => void, flag = NLA_F_NESTED): this {
    const at = this.#reserve(NLA_HEADER);
    write(this);
    const length = this.#length - at;
    if (length > 0xffff) {
      throw new WeftError('WEFT_INTERNAL', `netlink nest ${type} of ${length} bytes does not fit`);
    }
    this.#view.setUint16(at, length, true);
    this.#view.setUint16(at + 2, type | flag, true);
    return this;
  }

  /** Bytes written so far: for those who must split before an attribute grows past 65535. */
  get length(): number {
    return this.#length;
  }

  /** The message, its length filled in. Shares memory with the writer: done is done. */
  finish(): Uint8Array {
    this.#reserve(align(this.#length) - this.#length);
    this.#view.setUint32(0, this.#length, true);
    return this.#bytes.subarray(0, this.#length);
  }
}

/** Bounded reading of a payload's fixed part; every access past the end is WEFT_NETLINK_MALFORMED. */
export class NlReader {
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  #need(at: number, length: number): void {
    if (at + length > this.bytes.length) {
      throw malformed(`${length} bytes at ${at} of ${this.bytes.length}`, this.bytes);
    }
  }

  u8(at = 0): number {
    this.#need(at, 1);
    return this.bytes[at]!;
  }

  u16(at = 0): number {
    this.#need(at, 2);
    return this.#view.getUint16(at, true);
  }

  u16be(at = 0): number {
    this.#need(at, 2);
    return this.#view.getUint16(at);
  }

  u32(at = 0): number {
    this.#need(at, 4);
    return this.#view.getUint32(at, true);
  }

  i32(at = 0): number {
    this.#need(at, 4);
    return this.#view.getInt32(at, true);
  }

  u32be(at = 0): number {
    this.#need(at, 4);
    return this.#view.getUint32(at);
  }

  u64(at = 0): bigint {
    this.#need(at, 8);
    return this.#view.getBigUint64(at, true);
  }

  u64be(at = 0): bigint {
    this.#need(at, 8);
    return this.#view.getBigUint64(at);
  }

  /** The attributes after a fixed part of `fixed` bytes. */
  attributes(fixed = 0): Attributes {
    this.#need(0, fixed);
    return readAttributes(this.bytes.subarray(align(fixed)));
  }
}

/**
 * Attributes by type (flags stripped). Of one that occurs twice the last is kept, as the kernel's own parser does;
 * lists of equal attributes are read with {@link eachAttribute}.
 */
export class Attributes {
  readonly #byType = new Map<number, Uint8Array>();

  set(type: number, value: Uint8Array): void {
    this.#byType.set(type, value);
  }

  has(type: number): boolean {
    return this.#byType.has(type);
  }

  types(): IterableIterator<number> {
    return this.#byType.keys();
  }

  bytes(type: number): Uint8Array | undefined {
    return this.#byType.get(type);
  }

  #reader(type: number): NlReader | undefined {
    const value = this.#byType.get(type);
    return value && new NlReader(value);
  }

  u8(type: number): number | undefined {
    return this.#reader(type)?.u8();
  }

  u16(type: number): number | undefined {
    return this.#reader(type)?.u16();
  }

  u16be(type: number): number | undefined {
    return this.#reader(type)?.u16be();
  }

  u32(type: number): number | undefined {
    return this.#reader(type)?.u32();
  }

  i32(type: number): number | undefined {
    return this.#reader(type)?.i32();
  }

  u32be(type: number): number | undefined {
    return this.#reader(type)?.u32be();
  }

  u64(type: number): bigint | undefined {
    return this.#reader(type)?.u64();
  }

  u64be(type: number): bigint | undefined {
    return this.#reader(type)?.u64be();
  }

  /** Text up to its first zero byte, or to the end. */
  string(type: number): string | undefined {
    const value = this.#byType.get(type);
    if (!value) return undefined;
    const end = value.indexOf(0);
    return utf8.decode(end < 0 ? value : value.subarray(0, end));
  }

  nested(type: number): Attributes | undefined {
    const value = this.#byType.get(type);
    return value && readAttributes(value);
  }
}

/** Attributes in order, repeated ones included. @throws WEFT_NETLINK_MALFORMED */
export function* eachAttribute(bytes: Uint8Array): Generator<{ type: number; value: Uint8Array }> {
  let at = 0;
  // A rest shorter than a header is padding.
  while (at + NLA_HEADER <= bytes.length) {
    const length = bytes[at]! | (bytes[at + 1]! << 8);
    const type = (bytes[at + 2]! | (bytes[at + 3]! << 8)) & NLA_TYPE_MASK;
    if (length < NLA_HEADER || at + length > bytes.length) {
      throw malformed(`attribute ${type} of length ${length} at ${at} of ${bytes.length}`, bytes);
    }
    yield { type, value: bytes.subarray(at + NLA_HEADER, at + length) };
    at += align(length);
  }
}

export function readAttributes(bytes: Uint8Array): Attributes {
  const found = new Attributes();
  for (const { type, value } of eachAttribute(bytes)) found.set(type, value);
  return found;
}

export interface NlMessage {
  type: number;
  flags: number;
  seq: number;
  /** Port id of the socket whose request this answers or, in a notification, caused it; 0 is the kernel itself. */
  portId: number;
  /** What follows the header. Shares memory with the buffer it was read from. */
  payload: Uint8Array;
}

/** The messages in a buffer, one after the other. @throws WEFT_NETLINK_MALFORMED */
export function* eachMessage(bytes: Uint8Array): Generator<NlMessage> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  while (at + NLMSG_HEADER <= bytes.length) {
    const length = view.getUint32(at, true);
    if (length < NLMSG_HEADER || at + length > bytes.length) {
      throw malformed(`message of length ${length} at ${at} of ${bytes.length}`, bytes.subarray(at));
    }
    yield {
      type: view.getUint16(at + 4, true),
      flags: view.getUint16(at + 6, true),
      seq: view.getUint32(at + 8, true),
      portId: view.getUint32(at + 12, true),
      payload: bytes.subarray(at + NLMSG_HEADER, at + length),
    };
    at += align(length);
  }
}

/** Why the kernel refused a request (NLMSG_ERROR with NETLINK_EXT_ACK). */
export interface NlFailure {
  /** Positive. */
  errno: number;
  /** The kernel's own words. */
  message?: string;
  /** Where in the request the attribute at fault begins, in bytes from the message's start. */
  offset?: number;
  /** Attribute type that is missing. */
  missingType?: number;
}

const NLMSGERR_ATTR_MSG = 1;
const NLMSGERR_ATTR_OFFS = 2;
const NLMSGERR_ATTR_MISS_TYPE = 5;

/** The payload of NLMSG_ERROR, or of a NLMSG_DONE that carries an errno; undefined when it is an acknowledgement. */
export function readFailure(message: NlMessage): NlFailure | undefined {
  const r = new NlReader(message.payload);
  if (message.type === NLMSG_DONE && message.payload.length < 4) return undefined;
  const error = r.i32();
  if (error >= 0) return undefined;
  const failure: NlFailure = { errno: -error };
  if (message.flags & NLM_F_ACK_TLVS) {
    // An error repeats the request's header, and its payload too unless capped; a DONE repeats nothing.
    let fixed = 4;
    if (message.type === NLMSG_ERROR) {
      fixed += message.flags & NLM_F_CAPPED ? NLMSG_HEADER : Math.max(NLMSG_HEADER, align(r.u32(4)));
    }
    const explained = r.attributes(fixed);
    const text = explained.string(NLMSGERR_ATTR_MSG);
    const offset = explained.u32(NLMSGERR_ATTR_OFFS);
    const missing = explained.u32(NLMSGERR_ATTR_MISS_TYPE);
    if (text) failure.message = text;
    if (offset !== undefined) failure.offset = offset;
    if (missing !== undefined) failure.missingType = missing;
  }
  return failure;
}

/**
 * The path of attribute types at a byte offset of a request, outermost first: turns extack's offset into a name.
 * `fixed` is the length of the family's header. Empty when the offset points at none.
 */
export function attributePathAt(request: Uint8Array, fixed: number, offset: number): number[] {
  const path: number[] = [];
  let from = NLMSG_HEADER + align(fixed);
  let to = request.length;
  while (from + NLA_HEADER <= to) {
    const length = request[from]! | (request[from + 1]! << 8);
    const typeAndFlags = request[from + 2]! | (request[from + 3]! << 8);
    if (length < NLA_HEADER || from + length > to) return path;
    if (offset < from) return path;
    if (offset >= from + align(length)) {
      from += align(length);
      continue;
    }
    path.push(typeAndFlags & NLA_TYPE_MASK);
    if (offset === from || !(typeAndFlags & NLA_F_NESTED)) return path;
    to = from + length;
    from += NLA_HEADER;
  }
  return path;
}
