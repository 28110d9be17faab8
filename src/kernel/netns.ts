/**
 * Network namespaces, synchronously on the calling thread.
 *
 * A thread visits a namespace only inside {@link withNetns}, and always comes home: if it could not, every later
 * request of this process might change the wrong network, so the process is aborted instead.
 *
 * The window must stay synchronous, and start no thread and no process: libuv's pool threads keep the namespace of
 * whoever starts them. `fs.*Sync` runs on the calling thread and is safe.
 */
import {
  closeSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  statfsSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';
import { WeftError } from '../base/errors.ts';
import type { NsPath } from '../base/net-objects.ts';
import { encodeLinkSet } from '../wire/rtnetlink/link.ts';
import * as ffi from './ffi.ts';
import { NETLINK_ROUTE, NetlinkSocket } from './netlink-socket.ts';
import type { NetnsInfo } from './types.ts';

/** Where `ip netns` keeps its handles. */
export const NETNS_FOLDER = '/run/netns';

const NSFS_MAGIC = 0x6e736673;
const THREAD_NETNS = '/proc/thread-self/ns/net';
const LOOPBACK_INDEX = 1;

let homeFd = -1;

/** The namespace this thread started in; opened at the first visit elsewhere, before the thread moves. */
function home(): number {
  if (homeFd < 0) {
    homeFd = ffi.check(ffi.libc.open(THREAD_NETNS, ffi.O_RDONLY | ffi.O_CLOEXEC, 0), `open(${THREAD_NETNS})`);
  }
  return homeFd;
}

/** Close what this module keeps open for the calling thread; it opens again by itself. */
export function closeHome(): void {
  if (homeFd >= 0) ffi.libc.close(homeFd);
  homeFd = -1;
}

function goHome(): void {
  if (ffi.libc.setns(home(), ffi.CLONE_NEWNET) === 0) return;
  const reason = ffi.errnoText(ffi.errno());
  writeSync(
    2,
    `weft: cannot return from a network namespace (${reason}); aborting, to change no wrong network\n`,
  );
  ffi.libc.abort();
}

function notFound(nsPath: NsPath, why: string): WeftError {
  return new WeftError('WEFT_NETNS_NOT_FOUND', `network namespace ${nsPath}: ${why}`, {
    details: { path: nsPath },
  });
}

/** A descriptor of the namespace; the caller closes it. @throws WEFT_NETNS_NOT_FOUND */
export function openNetns(nsPath: NsPath): number {
  const fd = ffi.libc.open(nsPath === '' ? THREAD_NETNS : nsPath, ffi.O_RDONLY | ffi.O_CLOEXEC, 0);
  if (fd >= 0) return fd;
  const errno = ffi.errno();
  if (errno === ffi.ENOENT || errno === ffi.ESRCH || errno === ffi.ENOTDIR) {
    throw notFound(nsPath, ffi.errnoText(errno));
  }
  throw ffi.systemError(`open(${nsPath})`, errno);
}

/**
 * Run `fn` with the calling thread in the namespace; '' is the one it is in. `fn` must be synchronous.
 *
 * @throws WEFT_NETNS_NOT_FOUND when the path is gone or is no network namespace
 */
export function withNetns<T>(nsPath: NsPath, fn: () => T): T {
  if (nsPath === '') return fn();
  const fd = openNetns(nsPath);
  try {
    return enterNetns(fd, nsPath, fn);
  } finally {
    ffi.libc.close(fd);
  }
}

/** {@link withNetns} by a descriptor that is open already; the path is for messages. */
export function enterNetns<T>(fd: number, nsPath: NsPath, fn: () => T): T {
  home();
  if (ffi.libc.setns(fd, ffi.CLONE_NEWNET) !== 0) {
    const errno = ffi.errno();
    // A handle whose namespace was unbound is an ordinary empty file: EINVAL.
    if (errno === ffi.EINVAL) throw notFound(nsPath, 'the file is not a network namespace');
    throw ffi.systemError(`setns(${nsPath})`, errno);
  }
  try {
    return fn();
  } finally {
    goHome();
  }
}

/** Run `fn`, synchronous, with the thread in a namespace that nobody else has and that is gone afterwards. @throws WEFT_NOT_ROOT, WEFT_KERNEL_FEATURE_MISSING */
export function withFreshNetns<T>(fn: () => T): T {
  home();
  if (ffi.libc.unshare(ffi.CLONE_NEWNET) !== 0) throw unshareError(ffi.errno());
  try {
    return fn();
  } finally {
    goHome();
  }
}

/**
 * Create a namespace, its loopback up, and bind it to a file at `nsPath` (folders are made). Nothing is visible until
 * it is complete, and nothing stays of one that failed.
 *
 * @throws WEFT_NETNS_EXISTS, WEFT_NOT_ROOT, WEFT_KERNEL_FEATURE_MISSING
 */
export function createNetns(nsPath: NsPath): NetnsInfo {
  if (!path.isAbsolute(nsPath)) {
    throw new WeftError(
      'WEFT_BAD_CONFIG',
      `network namespace ${JSON.stringify(nsPath)}: the path must be absolute`,
    );
  }
  mkdirSync(path.dirname(nsPath), { recursive: true, mode: 0o755 });
  try {
    closeSync(openSync(nsPath, 'ax', 0o444));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    throw new WeftError('WEFT_NETNS_EXISTS', `network namespace ${nsPath} exists`, {
      details: { path: nsPath },
    });
  }
  try {
    withFreshNetns(() => {
      setLoopbackUp();
      ffi.check(ffi.libc.mount(THREAD_NETNS, nsPath, null, ffi.MS_BIND, null), `mount --bind ${nsPath}`);
    });
    return netnsInfo(nsPath);
  } catch (error) {
    deleteNetns(nsPath);
    throw error;
  }
}

/**
 * A namespace without a name, for the time of `fn`, which is given a path to it. Nothing of it can be left behind,
 * not even by a crash.
 */
export function withScratchNetns<T>(fn: (nsPath: NsPath) => T): T {
  home();
  if (ffi.libc.unshare(ffi.CLONE_NEWNET) !== 0) throw unshareError(ffi.errno());
  let fd: number;
  try {
    fd = openNetns('');
  } finally {
    goHome();
  }
  try {
    return fn(`/proc/self/fd/${fd}`);
  } finally {
    ffi.libc.close(fd);
  }
}

function unshareError(errno: number): WeftError {
  if (errno !== ffi.EINVAL) return ffi.systemError('unshare(CLONE_NEWNET)', errno);
  return new WeftError(
    'WEFT_KERNEL_FEATURE_MISSING',
    'this kernel has no network namespaces (CONFIG_NET_NS)',
    {
      details: { feature: 'netns', option: 'CONFIG_NET_NS' },
    },
  );
}

function setLoopbackUp(): void {
  using socket = new NetlinkSocket(NETLINK_ROUTE);
  const indexOf = (): number => LOOPBACK_INDEX;
  const [reply] = socket.request([encodeLinkSet(LOOPBACK_INDEX, { up: true }, { indexOf })]);
  if (reply?.failure) throw ffi.systemError('setting lo up', reply.failure.errno);
}

/**
 * Unbind and remove the handle; false when there was none. The kernel tears the namespace down once nobody is in it.
 *
 * @throws WEFT_NETNS_NOT_FOUND when the path is something else, which is left as it is
 */
export function deleteNetns(nsPath: NsPath): boolean {
  // One mount on another is possible (`ip netns attach` over a stale handle): all of them go, but never a mount of
  // another kind.
  while (netnsInode(nsPath) !== undefined) {
    ffi.check(ffi.libc.umount2(nsPath, ffi.MNT_DETACH), `umount(${nsPath})`);
  }
  try {
    const rest = lstatSync(nsPath);
    // Under the mount there was an empty file. Anything else was never a handle, and is not ours to remove.
    if (!rest.isFile() || rest.size > 0) throw notFound(nsPath, 'the file is not a network namespace');
    unlinkSync(nsPath);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return false;
    throw error;
  }
}

/** @throws WEFT_NETNS_NOT_FOUND */
export function netnsInfo(nsPath: NsPath): NetnsInfo {
  const inode = netnsInode(nsPath);
  if (inode === undefined) throw notFound(nsPath, 'there is none at this path');
  return { inode, path: nsPath };
}

/** The inode number, which is a namespace's identity; undefined when the path is gone or something else. */
export function netnsInode(nsPath: NsPath): number | undefined {
  const file = nsPath === '' ? THREAD_NETNS : nsPath;
  try {
    return statfsSync(file).type === NSFS_MAGIC ? statSync(file).ino : undefined;
  } catch {
    return undefined;
  }
}

/** Names of the namespaces bound in a folder, sorted; stale handles (ordinary files) are not namespaces. */
export function listNetns(folder = NETNS_FOLDER): string[] {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  return names.filter((name) => netnsInode(path.join(folder, name)) !== undefined).sort();
}
