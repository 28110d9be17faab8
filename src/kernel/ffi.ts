/**
 * libc by koffi: the system calls that Node does not offer, and nothing else.
 *
 * Every function here is synchronous and does one call on the calling thread, which matters twice: `setns` and
 * `unshare` act on that thread alone, and the sockets of a namespace are made inside it. The raw functions return what
 * libc returns; {@link check} turns -1 into a WeftError that names the call.
 */
import { constants } from 'node:os';
import koffi from 'koffi';
import { WeftError } from '../base/errors.ts';

/** Bytes whose address is handed to the kernel for the duration of one call. */
type Bytes = Uint8Array | Int32Array | Uint32Array | BigUint64Array;

if (process.platform !== 'linux') {
  throw new WeftError('WEFT_NOT_LINUX', `Weft needs Linux; this is ${process.platform}`);
}

// The symbols of this process: Node links libc dynamically, whichever libc that is.
const process_ = koffi.load(null);
const bind = <T>(prototype: string): T => process_.func(prototype) as unknown as T;

export const libc = {
  socket: bind<(domain: number, type: number, protocol: number) => number>('int socket(int, int, int)'),
  bind: bind<(fd: number, address: Bytes, length: number) => number>('int bind(int, void*, uint32_t)'),
  connect: bind<(fd: number, address: Bytes, length: number) => number>('int connect(int, void*, uint32_t)'),
  listen: bind<(fd: number, backlog: number) => number>('int listen(int, int)'),
  getsockname: bind<(fd: number, address: Bytes, length: Uint32Array) => number>(
    'int getsockname(int, void*, void*)',
  ),
  setsockopt: bind<(fd: number, level: number, name: number, value: Bytes, length: number) => number>(
    'int setsockopt(int, int, int, void*, uint32_t)',
  ),
  sendto: bind<
    (fd: number, data: Bytes, length: number, flags: number, to: Bytes | null, toLength: number) => number
  >('intptr_t sendto(int, void*, size_t, int, void*, uint32_t)'),
  recvfrom: bind<
    (
      fd: number,
      data: Bytes,
      length: number,
      flags: number,
      from: Bytes | null,
      fromLength: Uint32Array | null,
    ) => number
  >('intptr_t recvfrom(int, void*, size_t, int, void*, void*)'),
  open: bind<(path: string, flags: number, mode: number) => number>('int open(const char*, int, uint32_t)'),
  close: bind<(fd: number) => number>('int close(int)'),
  read: bind<(fd: number, data: Bytes, length: number) => number>('intptr_t read(int, void*, size_t)'),
  write: bind<(fd: number, data: Bytes, length: number) => number>('intptr_t write(int, void*, size_t)'),
  setns: bind<(fd: number, type: number) => number>('int setns(int, int)'),
  unshare: bind<(flags: number) => number>('int unshare(int)'),
  mount: bind<
    (source: string | null, target: string, type: string | null, flags: number, data: string | null) => number
  >('int mount(const char*, const char*, const char*, unsigned long, const char*)'),
  umount2: bind<(target: string, flags: number) => number>('int umount2(const char*, int)'),
  eventfd: bind<(initial: number, flags: number) => number>('int eventfd(uint32_t, int)'),
  epollCreate: bind<(flags: number) => number>('int epoll_create1(int)'),
  epollCtl: bind<(epoll: number, op: number, fd: number, event: Bytes) => number>(
    'int epoll_ctl(int, int, int, void*)',
  ),
  epollWait: bind<(epoll: number, events: Bytes, max: number, timeoutMs: number) => number>(
    'int epoll_wait(int, void*, int, int)',
  ),
  gettid: bind<() => number>('int gettid()'),
  mallocTrim: bind<(pad: number) => number>('int malloc_trim(size_t pad)'),
  abort: bind<() => never>('void abort()'),
  strerror: bind<(errno: number) => string>('const char* strerror(int)'),
} as const;

export const AF_INET = 2;
export const AF_INET6 = 10;
export const AF_NETLINK = 16;
export const SOCK_STREAM = 1;
export const SOCK_RAW = 3;
export const SOCK_CLOEXEC = 0o2000000;
export const SOCK_NONBLOCK = 0o4000;
export const SOL_SOCKET = 1;
export const SO_REUSEADDR = 2;
export const SO_SNDBUFFORCE = 32;
export const SO_RCVBUFFORCE = 33;
export const IPPROTO_IPV6 = 41;
export const IPV6_V6ONLY = 26;
export const MSG_TRUNC = 0x20;
export const MSG_DONTWAIT = 0x40;
export const O_RDONLY = 0;
export const O_CLOEXEC = 0o2000000;
export const CLONE_NEWNET = 0x40000000;
export const MS_BIND = 4096;
export const MNT_DETACH = 2;
export const EFD_CLOEXEC = 0o2000000;
export const EFD_NONBLOCK = 0o4000;
export const EPOLL_CLOEXEC = 0o2000000;
export const EPOLL_CTL_ADD = 1;
export const EPOLL_CTL_DEL = 2;
export const EPOLLIN = 1;

export const EPERM = constants.errno.EPERM;
export const ENOENT = constants.errno.ENOENT;
export const ESRCH = constants.errno.ESRCH;
export const EINTR = constants.errno.EINTR;
export const ENOTDIR = constants.errno.ENOTDIR;
export const EAGAIN = constants.errno.EAGAIN;
export const EBUSY = constants.errno.EBUSY;
export const EEXIST = constants.errno.EEXIST;
export const ENODEV = constants.errno.ENODEV;
export const EINVAL = constants.errno.EINVAL;
export const EOPNOTSUPP = constants.errno.EOPNOTSUPP;
export const EAFNOSUPPORT = constants.errno.EAFNOSUPPORT;
export const EPROTONOSUPPORT = constants.errno.EPROTONOSUPPORT;
export const EADDRINUSE = constants.errno.EADDRINUSE;
export const EADDRNOTAVAIL = constants.errno.EADDRNOTAVAIL;
export const ENOBUFS = constants.errno.ENOBUFS;

const names = new Map<number, string>();
for (const [name, value] of Object.entries(constants.errno)) {
  // Two names share a number here and there; the first is kept, but for the ones that people know.
  if (!names.has(value) || name === 'EAGAIN' || name === 'EOPNOTSUPP') names.set(value, name);
}

/** The errno of the last libc call of this thread. Read it at once: any other call may change it. */
export function errno(): number {
  return koffi.errno();
}

/** 17 → `EEXIST`. */
export function errnoName(value: number): string {
  return names.get(value) ?? `errno ${value}`;
}

/** 17 → `EEXIST: File exists`. */
export function errnoText(value: number): string {
  return `${errnoName(value)}: ${libc.strerror(value)}`;
}

/** The WeftError for a failed call: WEFT_NOT_ROOT for EPERM, WEFT_SYSCALL_FAILED otherwise. */
export function systemError(what: string, value: number = errno()): WeftError {
  const details = { errno: value, errnoName: errnoName(value) };
  if (value === EPERM) return new WeftError('WEFT_NOT_ROOT', `${what}: ${errnoText(value)}`, { details });
  return new WeftError('WEFT_SYSCALL_FAILED', `${what}: ${errnoText(value)}`, { details });
}

/** Pass a result ≥ 0 through. @throws WEFT_SYSCALL_FAILED, WEFT_NOT_ROOT */
export function check(result: number, what: string): number {
  if (result < 0) throw systemError(what);
  return result;
}

/** `setsockopt` with an int. @returns 0 or -1 */
export function setIntOption(fd: number, level: number, name: number, value: number): number {
  return libc.setsockopt(fd, level, name, Int32Array.of(value), 4);
}
