/**
 * Who changed the ruleset of a namespace: the nftables multicast group, one event per transaction.
 *
 * The kernel sends a notification per object and ends each transaction with NEWGEN, which names the thread that asked for
 * it (nf_tables_api.c, nf_tables_commit). iptables-nft is nftables, and is seen as well.
 */
import { readFileSync } from 'node:fs';
import type { NlMessage } from '../wire/netlink.ts';
import { decodeGeneration, decodeTouchedTable, NFT_MSG_NEWGEN } from '../wire/nf-tables.ts';
import { NFNLGRP_NFTABLES } from '../wire/nfnetlink.ts';
import {
  isOwnPort,
  NETLINK_NETFILTER,
  type NetlinkSocket,
  type NetlinkSocketOptions,
} from './netlink-socket.ts';
import type { Actor, KernelEvent } from './types.ts';

/** Of a namespace, what is needed here. */
interface SocketSource {
  socket(protocol: number, options?: NetlinkSocketOptions): NetlinkSocket;
}

export class NftEvents implements Disposable {
  readonly socket: NetlinkSocket;
  /** Tables touched since the last NEWGEN: a transaction may arrive in several reads. */
  readonly #touched = new Set<string>();

  constructor(namespace: SocketSource, receiveBuffer?: number) {
    this.socket = namespace.socket(NETLINK_NETFILTER, {
      groups: [NFNLGRP_NFTABLES],
      ...(receiveBuffer !== undefined && { receiveBuffer }),
    });
  }

  /** The transactions since the last call. After a loss: `resync`, behind what was read. */
  poll(): KernelEvent[] {
    const { messages, lost } = this.socket.receiveEvents();
    const events: KernelEvent[] = [];
    let unreadable = false;
    for (const message of messages) {
      try {
        const event = this.#take(message);
        if (event) events.push(event);
      } catch {
        unreadable = true; // what cannot be read must be looked at
      }
    }
    if (lost || unreadable) events.push({ type: 'resync' });
    return events;
  }

  #take(message: NlMessage): KernelEvent | undefined {
    if (message.type !== NFT_MSG_NEWGEN) {
      const table = decodeTouchedTable(message);
      if (table !== undefined) this.#touched.add(table);
      return undefined;
    }
    const { id, pid, name } = decodeGeneration(message.payload);
    const tables = [...this.#touched].sort();
    this.#touched.clear();
    const by = pid === 0 ? undefined : actorOfThread(pid, name);
    // libnftables has sockets of its own, whose port ids say nothing; the process does.
    const own = isOwnPort(message.portId) || by?.pid === process.pid;
    return { type: 'nft', generation: id, tables, own, ...(by && { by }) };
  }

  [Symbol.dispose](): void {
    this.socket.close();
  }
}

/** The process of a thread, while it lives; its name is the kernel's own word. */
function actorOfThread(tid: number, name: string | undefined): Actor {
  let pid = tid;
  try {
    const status = readFileSync(`/proc/${tid}/status`, 'utf8');
    pid = Number(/^Tgid:\s*(\d+)/m.exec(status)?.[1] ?? tid);
  } catch {
    // Gone already: most programs have one thread, whose id is the process's.
  }
  return { pid, ...(name && { name }) };
}
