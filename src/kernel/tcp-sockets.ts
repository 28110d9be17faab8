/** TCP sockets inside a namespace: they stay there whoever serves them later. The caller owns the descriptor. */

import { WeftError } from '../base/errors.ts';
import { familyOf, type Ip, parseIp } from '../base/ip.ts';
import type { NsPath } from '../base/net-objects.ts';
import * as ffi from './ffi.ts';
import { withNetns } from './netns.ts';

const BACKLOG = 511;

const EINPROGRESS = 115;

/**
 * Bind and listen in `ns`; port 0 lets the kernel choose. IPv6 sockets take IPv6 only.
 *
 * @throws WEFT_SYSCALL_FAILED (EADDRINUSE, EADDRNOTAVAIL), WEFT_NETNS_NOT_FOUND, WEFT_BAD_CONFIG
 */
export function listenTcp(ns: NsPath, address: Ip, port: number): number {
  return openTcp(ns, address, port, (fd, sockaddr, where) => {
    ffi.check(ffi.setIntOption(fd, ffi.SOL_SOCKET, ffi.SO_REUSEADDR, 1), 'setsockopt(SO_REUSEADDR)');
    if (familyOf(address) === 6) {
      ffi.check(ffi.setIntOption(fd, ffi.IPPROTO_IPV6, ffi.IPV6_V6ONLY, 1), 'setsockopt(IPV6_V6ONLY)');
    }
    ffi.check(ffi.libc.bind(fd, sockaddr, sockaddr.length), `bind(${where})`);
    ffi.check(ffi.libc.listen(fd, BACKLOG), `listen(${where})`);
  });
}

/**
 * Begin to connect from `ns`, without waiting for the answer.
 *
 * @throws WEFT_SYSCALL_FAILED when the kernel refuses at once (ENETUNREACH), WEFT_NETNS_NOT_FOUND, WEFT_BAD_CONFIG
 */
export function connectTcp(ns: NsPath, address: Ip, port: number): number {
  return openTcp(ns, address, port, (fd, sockaddr, where) => {
    if (ffi.libc.connect(fd, sockaddr, sockaddr.length) === 0) return;
    const errno = ffi.errno();
    if (errno !== EINPROGRESS) throw ffi.systemError(`connect(${where})`, errno);
  });
}

/** A non-blocking socket of the address's family, made ready by `prepare` inside the namespace. */
function openTcp(
  ns: NsPath,
  address: Ip,
  port: number,
  prepare: (fd: number, sockaddr: Uint8Array, where: string) => void,
): number {
  if (!Number.isInteger(port) || port < 0 || port > 65535) {
    throw new WeftError('WEFT_BAD_CONFIG', `port ${port} is not 0–65535`);
  }
  const sockaddr = socketAddress(address, port);
  const six = familyOf(address) === 6;
  const where = `${six ? `[${address}]` : address}:${port}${ns === '' ? '' : ` in ${ns}`}`;
  return withNetns(ns, () => {
    const type = ffi.SOCK_STREAM | ffi.SOCK_CLOEXEC | ffi.SOCK_NONBLOCK;
    const fd = ffi.check(ffi.libc.socket(six ? ffi.AF_INET6 : ffi.AF_INET, type, 0), 'socket(SOCK_STREAM)');
    try {
      prepare(fd, sockaddr, where);
      return fd;
    } catch (error) {
      ffi.libc.close(fd);
      throw error;
    }
  });
}

/** struct sockaddr_in and sockaddr_in6: family in host order, port and address in network order. */
function socketAddress(address: Ip, port: number): Uint8Array {
  const ip = parseIp(address);
  const bytes = new Uint8Array(ip.length === 4 ? 16 : 28);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, ip.length === 4 ? ffi.AF_INET : ffi.AF_INET6, true);
  view.setUint16(2, port);
  bytes.set(ip, ip.length === 4 ? 4 : 8);
  return bytes;
}
