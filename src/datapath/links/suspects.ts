/** Which events concern the desired state, and who was at which object: evidence for the next comparison. */
import { type NetObject, netObjectKey } from '../../base/net-objects.ts';
import type { Actor, KernelEvent } from '../../kernel/types.ts';
import { differences } from './differences.ts';
import { Ownership } from './ownership.ts';

export class Suspects {
  readonly #desired: ReadonlyMap<string, NetObject>;
  readonly #ownership: Ownership;
  /** Devices that desired objects are or stand on, the underlay's among them. */
  readonly #devices = new Set<string>();
  /** Addresses that desired routes prefer as their source: when one goes, the kernel changes the routes in silence. */
  readonly #sources = new Set<string>();
  #actors: Map<string, Actor>;

  constructor(desired: ReadonlyMap<string, NetObject>, actors = new Map<string, Actor>()) {
    this.#desired = desired;
    this.#actors = actors;
    const links = [...desired.values()].filter((object) => object.kind === 'link');
    this.#ownership = new Ownership(
      [],
      links.map((link) => link.name),
    );
    this.add(desired.values());
  }

  add(objects: Iterable<NetObject>): void {
    for (const object of objects) {
      for (const device of devicesOf(object)) this.#devices.add(device);
      if (object.kind === 'route' && object.src !== undefined) this.#sources.add(object.src);
    }
  }

  /** Whether a comparison is called for; `waiting`: something desired could not be made yet. */
  concerns(event: KernelEvent, waiting: boolean): boolean {
    if (event.type === 'resync' || event.type === 'sysctl') return true;
    if (event.type === 'nft' || event.own) return false;
    const { object } = event;
    const key = netObjectKey(object);
    const concerned = this.#isConcerned(event, key, waiting);
    if (concerned && event.by) this.#actors.set(key, event.by);
    return concerned;
  }

  #isConcerned(event: Extract<KernelEvent, { object: NetObject }>, key: string, waiting: boolean): boolean {
    const { object } = event;
    const wanted = this.#desired.get(key);
    if (wanted !== undefined) return event.type === 'delete' || differences(wanted, object).length > 0;
    if (event.type === 'new' && this.#ownership.owns(object)) return true;
    switch (object.kind) {
      case 'link':
        return waiting || this.#devices.has(object.name);
      case 'address':
        // News of an address that is there is routine: IPv6 ones are refreshed with every router advertisement.
        if (event.type === 'new') return waiting;
        return this.#sources.has(object.address.slice(0, object.address.indexOf('/')));
      case 'route':
        // What a refused route may have waited for: the subnet its gateway is on.
        return waiting && event.type === 'new' && devicesOf(object).some((dev) => this.#devices.has(dev));
      default:
        return false;
    }
  }

  /** Who was at the object itself, or else at a device it stands on. */
  whoChanged(object: NetObject): Actor | undefined {
    const own = this.#actors.get(netObjectKey(object));
    if (own) return own;
    for (const device of devicesOf(object)) {
      const actor = this.#actors.get(`link ${device}`);
      if (actor) return actor;
    }
    return undefined;
  }

  /** The evidence so far, which is then forgotten. */
  take(): Suspects {
    const taken = new Suspects(new Map(), this.#actors);
    this.#actors = new Map();
    return taken;
  }
}

function devicesOf(object: NetObject): string[] {
  switch (object.kind) {
    case 'link':
      return [object.name];
    case 'rule':
      return [];
    case 'route':
      return (object.nexthops ?? [{ dev: object.dev }]).flatMap((hop) => hop.dev ?? []);
    default:
      return [object.dev];
  }
}
