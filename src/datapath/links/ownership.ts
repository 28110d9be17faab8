/** Which of a namespace's network objects are this reconciler's: by their marks alone, never by memory. */
import { type Link, type NetObject, POD_LINK_GROUP, WEFT_PROTOCOL } from '../../base/net-objects.ts';

/** The alias (IFLA_IFALIAS) that marks a device of the fabric. */
const FABRIC_ALIAS = 'weft:fabric';
/** Their names, for a device whose maker died before it could set the alias. */
const FABRIC_NAME = /^weft-vxlan6?$/;
/** Host ends of pods; also while the link itself cannot be seen, because it came after the dump or went before it. */
const POD_NAME = /^weft[0-9a-f]{11}$/;

export class Ownership {
  readonly #fabric = new Set<string>();
  readonly #pods = new Set<string>();

  /** `wanted`: names of devices in the desired state, which are ours whatever they look like. */
  constructor(objects: Iterable<NetObject>, wanted: Iterable<string> = []) {
    for (const name of wanted) this.#fabric.add(name);
    for (const object of objects) {
      if (object.kind !== 'link') continue;
      if (object.group === POD_LINK_GROUP) this.#pods.add(object.name);
      else if (isFabricLink(object)) this.#fabric.add(object.name);
    }
  }

  /**
   * Links of the fabric; on them every address, permanent neighbour and permanent FDB entry; elsewhere rules and routes of
   * Weft's protocol, but for those that lead to pods, which belong to whoever attached the pod.
   */
  owns(object: NetObject): boolean {
    switch (object.kind) {
      case 'link':
        return this.#fabric.has(object.name);
      case 'address':
        // Link-local ones are the kernel's, should it have made one before it was told not to.
        return (
          this.#fabric.has(object.dev) && !(object.scope === 'link' && object.address.startsWith('fe80:'))
        );
      case 'route': {
        if (object.protocol !== WEFT_PROTOCOL) return false;
        const devices = object.nexthops?.map((hop) => hop.dev) ?? [object.dev];
        return !devices.some((dev) => dev !== undefined && (this.#pods.has(dev) || POD_NAME.test(dev)));
      }
      case 'rule':
        return object.protocol === WEFT_PROTOCOL;
      case 'neighbour':
        return this.#fabric.has(object.dev) && object.state === 'permanent' && !object.proxy;
      case 'fdb':
        return this.#fabric.has(object.dev) && object.state === 'permanent';
    }
  }
}

function isFabricLink(link: Link): boolean {
  return link.type === 'vxlan' && (link.alias === FABRIC_ALIAS || FABRIC_NAME.test(link.name));
}
