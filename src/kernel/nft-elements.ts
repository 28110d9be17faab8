/** Elements of nftables sets and maps by raw nfnetlink: microseconds each, whatever the size of the ruleset. */
import { type ErrorCode, WeftError } from '../base/errors.ts';
import { NLM_F_ACK, type NlFailure } from '../wire/netlink.ts';
import {
  decodeElements,
  elementAt,
  encodeElementChange,
  encodeElementDump,
  type NftElement,
  type NftElementChange,
  type NftFamily,
} from '../wire/nf-tables.ts';
import { encodeBatchBegin, encodeBatchEnd, NFNL_SUBSYS_NFTABLES } from '../wire/nfnetlink.ts';
import * as ffi from './ffi.ts';
import type { NetlinkSocket } from './netlink-socket.ts';

/** Rounds of taking out elements that have just vanished (a timeout, another process) before a deletion is given up. */
const DELETE_ATTEMPTS = 5;

interface Refusal {
  /** Index of the change at fault; undefined: the transaction as a whole. */
  change?: number;
  /** Index of the element within the change, where the kernel tells. */
  element?: number;
  failure: NlFailure;
}

/**
 * All changes as one transaction: all of them or none. Adding what is there is no error, unless a map has other data for
 * the key (delete it first, in the same transaction); nor is deleting an element that is not there.
 *
 * @throws WEFT_NFT_REJECTED with `details.change`, `details.element` and `details.errno`; WEFT_NOT_ROOT
 */
export function applyElementChanges(socket: NetlinkSocket, changes: readonly NftElementChange[]): void {
  let wanted = changes;
  for (let attempt = 1; ; attempt++) {
    const refusal = sendTransaction(socket, wanted);
    if (!refusal) return;
    const { change, element, failure } = refusal;
    const gone =
      change !== undefined &&
      wanted[change]?.action === 'delete' &&
      element !== undefined &&
      failure.errno === ffi.ENOENT;
    if (!gone || attempt === DELETE_ATTEMPTS) throw refusalError(wanted, refusal);
    // A missing element fails its whole transaction: it is sent again without those that are not there.
    wanted = wanted.map((one, i) => withoutMissing(socket, wanted, one, i));
  }
}

/** The first refusal that names a change; undefined when all was done. */
function sendTransaction(socket: NetlinkSocket, changes: readonly NftElementChange[]): Refusal | undefined {
  const messages: Uint8Array[] = [encodeBatchBegin(NFNL_SUBSYS_NFTABLES)];
  const origin: Array<{ change: number; first: number }> = [];
  changes.forEach((change, index) => {
    for (const { bytes, first } of encodeElementChange(change)) {
      messages.push(bytes);
      origin.push({ change: index, first });
    }
  });
  if (origin.length === 0) return undefined;
  // Kernels before 6.10 acknowledge no BATCH_END: the last change asks for it as well.
  const last = new DataView(messages.at(-1)!.buffer, messages.at(-1)!.byteOffset);
  last.setUint16(6, last.getUint16(6, true) | NLM_F_ACK, true);
  messages.push(encodeBatchEnd(NFNL_SUBSYS_NFTABLES));
  const replies = socket.request(messages);
  let whole: NlFailure | undefined;
  for (let i = 0; i < replies.length; i++) {
    const failure = replies[i]!.failure;
    if (!failure) continue;
    const from = origin[i - 1];
    if (!from) {
      whole = failure;
      continue;
    }
    const element = failure.offset === undefined ? undefined : elementAt(messages[i]!, failure.offset);
    return {
      change: from.change,
      failure,
      ...(element !== undefined && { element: from.first + element }),
    };
  }
  return whole && { failure: whole };
}

function elementKey({ key, keyEnd, intervalEnd }: NftElement): string {
  const hex = (bytes: Uint8Array | undefined): string => (bytes ? Buffer.from(bytes).toString('hex') : '');
  return `${hex(key)}-${hex(keyEnd)}${intervalEnd ? ' end' : ''}`;
}

/** A deletion reduced to what is there, or was added to the set by an earlier change of the same transaction. */
function withoutMissing(
  socket: NetlinkSocket,
  changes: readonly NftElementChange[],
  change: NftElementChange,
  index: number,
): NftElementChange {
  if (change.action !== 'delete') return change;
  const { family, table, set } = change;
  const there = new Set(dumpElements(socket, family, table, set).map(elementKey));
  for (const earlier of changes.slice(0, index)) {
    if (earlier.family !== family || earlier.table !== table || earlier.set !== set) continue;
    if (earlier.action === 'flush') there.clear();
    for (const element of earlier.elements ?? []) {
      if (earlier.action === 'add') there.add(elementKey(element));
      else there.delete(elementKey(element));
    }
  }
  return { ...change, elements: (change.elements ?? []).filter((element) => there.has(elementKey(element))) };
}

function refusalError(changes: readonly NftElementChange[], refusal: Refusal): WeftError {
  const { failure, change: index, element } = refusal;
  const change = index === undefined ? undefined : changes[index];
  const target = change ? `nft set ${change.family} ${change.table} ${change.set}` : 'an nft transaction';
  const which = element === undefined ? '' : `, element ${element}`;
  const value = element === undefined ? undefined : change?.elements?.[element];
  const key = value ? ` (key ${Buffer.from(value.key).toString('hex')})` : '';
  const why = `${ffi.errnoText(failure.errno)}${failure.message ? ` (${failure.message})` : ''}`;
  const code: ErrorCode = failure.errno === ffi.EPERM ? 'WEFT_NOT_ROOT' : 'WEFT_NFT_REJECTED';
  return new WeftError(code, `${change?.action ?? 'commit'} ${target}${which}${key}: ${why}`, {
    details: {
      errno: failure.errno,
      errnoName: ffi.errnoName(failure.errno),
      ...(index !== undefined && { change: index }),
      ...(element !== undefined && { element }),
    },
  });
}

/** Every element of a set or map, as the kernel keeps it. @throws WEFT_NFT_REJECTED when there is no such set */
export function dumpElements(
  socket: NetlinkSocket,
  family: NftFamily,
  table: string,
  set: string,
): NftElement[] {
  let payloads: Uint8Array[];
  try {
    payloads = socket.dump(encodeElementDump(family, table, set));
  } catch (error) {
    if (!(error instanceof WeftError) || error.details.errno !== ffi.ENOENT) throw error;
    throw new WeftError('WEFT_NFT_REJECTED', `there is no nft set ${family} ${table} ${set}`, {
      details: { errno: ffi.ENOENT, errnoName: 'ENOENT' },
    });
  }
  return payloads.flatMap(decodeElements);
}
