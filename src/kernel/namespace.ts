/** A namespace held open for work: its descriptor, and its netlink sockets as they are needed. */
import { fstatSync } from 'node:fs';
import type { NsPath } from '../base/net-objects.ts';
import * as ffi from './ffi.ts';
import {
  NETLINK_NETFILTER,
  NETLINK_ROUTE,
  NetlinkSocket,
  type NetlinkSocketOptions,
} from './netlink-socket.ts';
import { enterNetns, netnsInode, openNetns } from './netns.ts';

/**
 * Everything is done through the one descriptor, so that all of it happens in the same namespace even when the path is
 * given to another in between. While it is open, the namespace lives.
 */
export class Namespace implements Disposable {
  readonly path: NsPath;
  readonly inode: number;
  readonly fd: number;
  #route: NetlinkSocket | undefined;
  #netfilter: NetlinkSocket | undefined;

  /** @throws WEFT_NETNS_NOT_FOUND */
  constructor(path: NsPath) {
    this.path = path;
    this.fd = openNetns(path);
    this.inode = fstatSync(this.fd).ino;
  }

  get route(): NetlinkSocket {
    this.#route ??= this.socket(NETLINK_ROUTE);
    return this.#route;
  }

  get netfilter(): NetlinkSocket {
    this.#netfilter ??= this.socket(NETLINK_NETFILTER);
    return this.#netfilter;
  }

  /** A socket of its own, closed by the caller. */
  socket(protocol: number, options?: NetlinkSocketOptions): NetlinkSocket {
    return this.enter(() => new NetlinkSocket(protocol, options));
  }

  /** Run synchronously with the thread in this namespace. */
  enter<T>(fn: () => T): T {
    return this.path === '' ? fn() : enterNetns(this.fd, this.path, fn);
  }

  close(): void {
    this.#route?.close();
    this.#netfilter?.close();
    ffi.libc.close(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/**
 * Namespaces by path. Our own is kept open, and those pinned (watched) as long as they are; others are opened for one
 * use, because an open socket would keep a deleted namespace, and all that is in it, alive.
 */
export class Namespaces implements Disposable {
  readonly #kept = new Map<NsPath, { namespace: Namespace; pins: number }>();

  /** Use it, then give it back with {@link release}. @throws WEFT_NETNS_NOT_FOUND */
  take(path: NsPath): Namespace {
    if (path === '') {
      if (!this.#kept.has('')) this.#kept.set('', { namespace: new Namespace(''), pins: 1 });
    }
    const kept = this.#kept.get(path);
    // A path can come to mean another namespace: deleted and created again. Its inode tells.
    if (kept && (path === '' || netnsInode(path) === kept.namespace.inode)) return kept.namespace;
    return new Namespace(path);
  }

  release(namespace: Namespace): void {
    if (this.#kept.get(namespace.path)?.namespace !== namespace) namespace.close();
  }

  use<T>(path: NsPath, fn: (namespace: Namespace) => T): T {
    const namespace = this.take(path);
    try {
      return fn(namespace);
    } finally {
      this.release(namespace);
    }
  }

  /** Keep it open until {@link unpin}. A pinned path that has come to mean another namespace is pinned anew. */
  pin(path: NsPath): Namespace {
    const namespace = this.take(path);
    const kept = this.#kept.get(path);
    if (kept?.namespace === namespace) kept.pins++;
    else this.#kept.set(path, { namespace, pins: 1 });
    if (kept && kept.namespace !== namespace) kept.namespace.close();
    return namespace;
  }

  unpin(namespace: Namespace): void {
    const kept = this.#kept.get(namespace.path);
    if (kept?.namespace !== namespace || --kept.pins > 0) return;
    this.#kept.delete(namespace.path);
    namespace.close();
  }

  [Symbol.dispose](): void {
    for (const { namespace } of this.#kept.values()) namespace.close();
    this.#kept.clear();
  }
}
