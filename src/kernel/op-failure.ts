/** From a refusal by the kernel, or an error on the way there, to an {@link OpFailure} that says what failed and why. */
import { type ErrorCode, isWeftError, messageOf, WeftError } from '../base/errors.ts';
import type { NsPath } from '../base/net-objects.ts';
import { attributePathAt, type NlFailure } from '../wire/netlink.ts';
import { attributeName, fixedLength } from '../wire/rtnetlink/object.ts';
import { describeOp } from './describe-op.ts';
import * as ffi from './ffi.ts';
import type { Op, OpFailure } from './types.ts';

export interface Place {
  step: number;
  op: number;
  ns: NsPath;
}

const absent = new Set([ffi.ENOENT, ffi.ESRCH, ffi.ENODEV, ffi.EADDRNOTAVAIL]);

/** net/core/rtnetlink.c; the errno alone (EOPNOTSUPP) may be about one of the link's options. */
const UNKNOWN_KIND = 'Unknown device type';

/** The build option that gives a kernel the links of a kind. */
const linkOptions: Record<string, string> = {
  veth: 'CONFIG_VETH',
  bridge: 'CONFIG_BRIDGE',
  vxlan: 'CONFIG_VXLAN',
  macvlan: 'CONFIG_MACVLAN',
  tun: 'CONFIG_TUN',
};

function deletes(op: Op): boolean {
  return (
    op.op.endsWith('.delete') ||
    op.op === 'link.deleteGroup' ||
    op.op === 'conntrack.purge' ||
    (op.op === 'nft.elements' && op.change.action === 'delete')
  );
}

/** The kernel refused the message `request`. */
export function refusedFailure(op: Op, place: Place, request: Uint8Array, failure: NlFailure): OpFailure {
  const type = request[4]! | (request[5]! << 8);
  const words: string[] = [];
  if (failure.message) words.push(failure.message);
  if (failure.offset !== undefined) {
    const name = attributeName(type, attributePathAt(request, fixedLength(type), failure.offset));
    if (name) words.push(`at ${name}`);
  }
  if (failure.missingType !== undefined) words.push(`missing ${attributeName(type, [failure.missingType])}`);
  let code: ErrorCode = 'WEFT_NETLINK_REFUSED';
  if (failure.errno === ffi.EPERM) code = 'WEFT_NOT_ROOT';
  if (op.op === 'link.create' && failure.message === UNKNOWN_KIND) {
    code = 'WEFT_KERNEL_FEATURE_MISSING';
    words.push(`this kernel has no ${op.link.type} (${linkOptions[op.link.type ?? ''] ?? 'no such kind'})`);
  }
  return build(op, place, failure.errno, words.join(', '), code);
}

/** Something threw before or while the kernel was asked. */
export function thrownFailure(op: Op, place: Place, error: unknown): OpFailure {
  const errno =
    isWeftError(error) && typeof error.details.errno === 'number' ? error.details.errno : undefined;
  const code = isWeftError(error) ? error.code : 'WEFT_INTERNAL';
  const assumed = code === 'WEFT_NETNS_NOT_FOUND' ? ffi.ENOENT : ffi.EINVAL;
  return build(op, place, errno ?? assumed, messageOf(error), code, errno === undefined);
}

function build(
  op: Op,
  { step, op: index, ns }: Place,
  errno: number,
  why: string,
  code: ErrorCode,
  plain = false,
): OpFailure {
  const where = ns === '' ? '' : ` in ${ns}`;
  const reason = plain ? why : `${ffi.errnoText(errno)}${why ? ` (${why})` : ''}`;
  return {
    step,
    op: index,
    errno,
    errnoName: ffi.errnoName(errno),
    message: `cannot ${describeOp(op)}${where}: ${reason}`,
    code,
    gone: deletes(op) && absent.has(errno),
  };
}

/** What {@link Kernel.must} throws for the first failure that counts. */
export function failureError(failure: OpFailure): WeftError {
  const { code = 'WEFT_NETLINK_REFUSED', message, ...details } = failure;
  return new WeftError(code, message, { details });
}
