/**
 * A netlink socket, synchronous, usable on any thread. It belongs to the namespace in which it was made for as long as
 * it lives, whatever the thread does later.
 *
 * The kernel answers netlink within `sendto` (and continues a dump within `recvfrom`), so every answer is in the queue
 * when the call returns: nothing here ever blocks, and a missing answer is seen as such.
 */
import { WeftError } from '../base/errors.ts';
import {
  eachMessage,
  malformed,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_REQUEST,
  NLMSG_DONE,
  NLMSG_ERROR,
  NLMSG_HEADER,
  NLMSG_OVERRUN,
  type NlFailure,
  type NlMessage,
  readFailure,
} from '../wire/netlink.ts';
import * as ffi from './ffi.ts';

export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;

const SOL_NETLINK = 270;
const NETLINK_ADD_MEMBERSHIP = 1;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NETLINK_GET_STRICT_CHK = 12;

/** Enough for the answers to a batch of a thousand refusals; a limit, not an allocation. */
const REQUEST_RECEIVE_BUFFER = 1 << 20;
/** 100k ruleset events fitted into this (docs: measured). */
const EVENT_RECEIVE_BUFFER = 8 << 20;
const DUMP_ATTEMPTS = 20;
/** One buffer per thread; what is kept is copied out. The kernel's dump chunks are at most 32 KiB. */
const buffer = new Uint8Array(256 * 1024);
const fromAddress = new Uint8Array(12);
const fromLength = new Uint32Array(1);

/**
 * Port ids of this process carry its pid: bit 31 set (no pid reaches it), 22 bits of pid, 9 of a counter. So every
 * thread can tell its process's own changes in an event without sharing a table.
 */
const OWN_PORTS = (0x80000000 | ((process.pid & 0x3fffff) << 9)) >>> 0;
let nextPort = ffi.libc.gettid() & 0x1ff;

/** Whether a notification's port id (`nlmsg_pid`) is one of this process's own sockets. */
export function isOwnPort(portId: number): boolean {
  return (portId & 0xfffffe00) >>> 0 === OWN_PORTS;
}

export interface NetlinkSocketOptions {
  /** Multicast groups to join, by number. */
  groups?: number[];
  /** Bytes. Default 1 MiB, or 8 MiB with groups. */
  receiveBuffer?: number;
}

/** The answer to one message of a request. */
export interface NetlinkReply {
  /** Absent: it was done. */
  failure?: NlFailure;
  /** Messages in answer other than the acknowledgement (of a GET, or NLM_F_ECHO). */
  messages: NlMessage[];
}

export interface ReceivedEvents {
  messages: NlMessage[];
  /** Events were dropped before these: dump and compare. */
  lost: boolean;
}

export class NetlinkSocket implements Disposable {
  readonly fd: number;
  readonly protocol: number;
  /** Unsigned, as it stands in nlmsg_pid. */
  readonly portId: number;
  #seq = 0;
  #sendBuffer = 200_000;
  #closed = false;

  /** In the namespace the calling thread is in. @throws WEFT_SYSCALL_FAILED, WEFT_NOT_ROOT */
  constructor(protocol: number, options: NetlinkSocketOptions = {}) {
    this.protocol = protocol;
    this.fd = ffi.check(
      ffi.libc.socket(ffi.AF_NETLINK, ffi.SOCK_RAW | ffi.SOCK_CLOEXEC, protocol),
      `socket(AF_NETLINK, ${protocol})`,
    );
    try {
      this.portId = bindOwnPort(this.fd);
      ffi.setIntOption(this.fd, SOL_NETLINK, NETLINK_CAP_ACK, 1);
      ffi.setIntOption(this.fd, SOL_NETLINK, NETLINK_EXT_ACK, 1);
      if (protocol === NETLINK_ROUTE) ffi.setIntOption(this.fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1);
      const groups = options.groups ?? [];
      const size = options.receiveBuffer ?? (groups.length ? EVENT_RECEIVE_BUFFER : REQUEST_RECEIVE_BUFFER);
      ffi.check(
        ffi.setIntOption(this.fd, ffi.SOL_SOCKET, ffi.SO_RCVBUFFORCE, size),
        `setsockopt(SO_RCVBUFFORCE, ${size})`,
      );
      for (const group of groups) {
        ffi.check(
          ffi.setIntOption(this.fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group),
          `setsockopt(NETLINK_ADD_MEMBERSHIP, ${group})`,
        );
      }
    } catch (error) {
      ffi.libc.close(this.fd);
      throw error;
    }
  }

  /** Send bytes as they are, growing the send buffer to fit. @throws WEFT_SYSCALL_FAILED */
  send(bytes: Uint8Array): void {
    if (bytes.length > this.#sendBuffer) {
      ffi.check(
        ffi.setIntOption(this.fd, ffi.SOL_SOCKET, ffi.SO_SNDBUFFORCE, bytes.length + 4096),
        `setsockopt(SO_SNDBUFFORCE, ${bytes.length + 4096})`,
      );
      this.#sendBuffer = bytes.length;
    }
    for (;;) {
      if (ffi.libc.sendto(this.fd, bytes, bytes.length, 0, null, 0) >= 0) return;
      const errno = ffi.errno();
      if (errno !== ffi.EINTR) throw ffi.systemError('sendto(netlink)', errno);
    }
  }

  /**
   * All messages in one send; their sequence numbers are set here. The kernel works through them in order and goes on
   * after a refusal, so each has its own reply. Only the last asks for an acknowledgement: refusals are always
   * reported, and what is not refused before it was done.
   *
   * @throws WEFT_SYSCALL_FAILED when the socket itself fails
   */
  request(messages: Uint8Array[]): NetlinkReply[] {
    if (messages.length === 0) return [];
    const first = this.#seq + 1;
    this.send(this.#pack(messages));
    const replies: NetlinkReply[] = messages.map(() => ({ messages: [] }));
    let acknowledged = false;
    /** By a refusal, or by an acknowledgement of a message that asked for its own (kernels before 6.10 give none for BATCH_END). */
    let answered = false;
    while (!acknowledged) {
      const chunk = this.#receive();
      if (chunk === 'lost') {
        throw new WeftError('WEFT_SYSCALL_FAILED', 'recvfrom(netlink): answers were lost (ENOBUFS)');
      }
      if (!chunk) break;
      for (const message of eachMessage(chunk)) {
        const reply = replies[(message.seq - first) >>> 0];
        if (!reply) continue; // the rest of an earlier exchange that was given up
        if (message.type === NLMSG_ERROR) {
          const failure = readFailure(message);
          if (failure) reply.failure = failure;
          answered = true;
          if (message.seq === this.#seq) acknowledged = true;
        } else if (message.type !== NLMSG_DONE) {
          reply.messages.push(message);
        }
      }
    }
    if (!answered) {
      throw new WeftError('WEFT_SYSCALL_FAILED', `netlink: no answer to ${messages.length} messages`);
    }
    return replies;
  }

  /** Payloads of a dump: {@link dumpMessages} without the headers. */
  dump(message: Uint8Array): Uint8Array[] {
    return this.dumpMessages(message).map((m) => m.payload);
  }

  /**
   * Everything a dump request yields. One that was interrupted by a change (NLM_F_DUMP_INTR, EINTR, EBUSY, EAGAIN) is
   * done again, so that the result is one consistent state.
   *
   * @throws WEFT_NETLINK_REFUSED with `details.errno`
   */
  dumpMessages(message: Uint8Array): NlMessage[] {
    for (let attempt = 1; ; attempt++) {
      const result = this.#dumpOnce(message);
      if (Array.isArray(result)) return result;
      if (attempt === DUMP_ATTEMPTS) {
        throw new WeftError(
          'WEFT_NETLINK_REFUSED',
          `netlink dump: interrupted ${attempt} times by changes (${ffi.errnoText(result.errno)})`,
          { details: { errno: result.errno, errnoName: ffi.errnoName(result.errno) } },
        );
      }
    }
  }

  #dumpOnce(message: Uint8Array): NlMessage[] | NlFailure {
    const request = message.slice();
    const view = new DataView(request.buffer);
    view.setUint16(6, view.getUint16(6, true) | NLM_F_REQUEST | NLM_F_DUMP, true);
    view.setUint32(8, ++this.#seq, true);
    this.send(request);
    const found: NlMessage[] = [];
    let interrupted: NlFailure | undefined;
    for (;;) {
      const chunk = this.#receive();
      if (chunk === 'lost') {
        interrupted = { errno: ffi.ENOBUFS };
        continue;
      }
      if (!chunk) {
        // The kernel gives up a dump without a word only when it has no memory.
        return interrupted ?? { errno: ffi.EAGAIN };
      }
      for (const m of eachMessage(chunk)) {
        if (m.seq !== this.#seq) continue;
        if (m.flags & NLM_F_DUMP_INTR && m.type !== NLMSG_ERROR) interrupted = { errno: ffi.EINTR };
        if (m.type === NLMSG_DONE || m.type === NLMSG_ERROR) {
          const failure = readFailure(m);
          if (failure && !isTransient(failure.errno)) {
            throw new WeftError(
              'WEFT_NETLINK_REFUSED',
              `netlink dump: ${ffi.errnoText(failure.errno)}${failure.message ? ` (${failure.message})` : ''}`,
              { details: { ...failure, errnoName: ffi.errnoName(failure.errno) } },
            );
          }
          return failure ?? interrupted ?? found;
        }
        if (m.type === NLMSG_OVERRUN) interrupted = { errno: ffi.ENOBUFS };
        else found.push(m);
      }
    }
  }

  /**
   * Notifications that are waiting, at most `limit` datagrams of them so that one busy socket cannot starve the
   * others; call again while `messages` is not empty.
   */
  receiveEvents(limit = 256): ReceivedEvents {
    const result: ReceivedEvents = { messages: [], lost: false };
    for (let i = 0; i < limit; i++) {
      const chunk = this.#receive();
      if (!chunk) break;
      if (chunk === 'lost') {
        result.lost = true;
        continue;
      }
      try {
        for (const message of eachMessage(chunk)) result.messages.push(message);
      } catch {
        result.lost = true; // what cannot be read cannot be told: the subscriber dumps
      }
    }
    return result;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    ffi.libc.close(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #pack(messages: Uint8Array[]): Uint8Array {
    let length = 0;
    for (const m of messages) length += (m.length + 3) & ~3;
    const all = new Uint8Array(length);
    const view = new DataView(all.buffer);
    let at = 0;
    messages.forEach((m, i) => {
      all.set(m, at);
      const last = i === messages.length - 1 ? NLM_F_ACK : 0;
      view.setUint16(at + 6, view.getUint16(at + 6, true) | NLM_F_REQUEST | last, true);
      view.setUint32(at + 8, ++this.#seq, true);
      at += (m.length + 3) & ~3;
    });
    return all;
  }

  /** One datagram from the kernel, copied; undefined when none is waiting. */
  #receive(): Uint8Array | 'lost' | undefined {
    for (;;) {
      fromLength[0] = fromAddress.length;
      const n = ffi.libc.recvfrom(
        this.fd,
        buffer,
        buffer.length,
        ffi.MSG_DONTWAIT | ffi.MSG_TRUNC,
        fromAddress,
        fromLength,
      );
      if (n < 0) {
        const errno = ffi.errno();
        if (errno === ffi.EAGAIN) return undefined;
        if (errno === ffi.ENOBUFS) return 'lost';
        if (errno === ffi.EINTR) continue;
        throw ffi.systemError('recvfrom(netlink)', errno);
      }
      // nl_pid 0 is the kernel; another process with CAP_NET_ADMIN could write to us, and is not listened to.
      if ((fromAddress[4]! | fromAddress[5]! | fromAddress[6]! | fromAddress[7]!) !== 0) continue;
      if (n > buffer.length) return 'lost';
      if (n < NLMSG_HEADER) throw malformed(`datagram of ${n} bytes`);
      return buffer.slice(0, n);
    }
  }
}

function isTransient(errno: number): boolean {
  return errno === ffi.EINTR || errno === ffi.EBUSY || errno === ffi.EAGAIN;
}

function bindOwnPort(fd: number): number {
  const address = new Uint8Array(12);
  const view = new DataView(address.buffer);
  view.setUint16(0, ffi.AF_NETLINK, true);
  for (let attempt = 0; attempt < 512; attempt++) {
    const portId = (OWN_PORTS | (nextPort++ & 0x1ff)) >>> 0;
    view.setUint32(4, portId, true);
    if (ffi.libc.bind(fd, address, address.length) === 0) return portId;
    const errno = ffi.errno();
    if (errno !== ffi.EADDRINUSE) throw ffi.systemError('bind(netlink)', errno);
  }
  throw new WeftError(
    'WEFT_SYSCALL_FAILED',
    'bind(netlink): 512 sockets of this process are open here already',
  );
}
