/**
 * An attachment: one interface of one sandbox, as CNI ADD made it. The record is durable before ADD answers; everything
 * in the kernel that belongs to it can be computed from it.
 */
import type { Cidr, Mac } from '../base/ip.ts';
import type { Address, Link, Neighbour, NsPath, Route } from '../base/net-objects.ts';

export interface Attachment {
  /** `containerId/ifname`: CNI's own key. */
  id: string;
  containerId: string;
  ifname: string;
  /** CNI network name. */
  network: string;
  netns: NsPath;
  /** Inode of the namespace when attached: tells a reused path from the same sandbox. */
  netnsInode: number;
  /** `address/32`, `address/128`; at most one per family for allocated ones. */
  ips: Cidr[];
  /** MAC inside the sandbox. */
  mac: Mac;
  /** Host side of the veth; `weft` and a hash of the id, at most 15 bytes. */
  hostIfname: string;
  /** Bytes. */
  mtu: number;
  /**
   * What the sandbox reaches through this interface. Absent: everything (a default route per family); given when another
   * interface of the sandbox has the default route already.
   */
  routes?: Cidr[];
  /** From CNI_ARGS, if the runtime said. */
  pod?: { namespace: string; name: string; uid?: string };
  /** RFC 3339. */
  createdAt: string;
}

/** Everything an attachment is in the kernel; computed by `src/attach`, carried out by `src/datapath/attach`. */
export interface AttachPlan {
  attachment: Attachment;
  /** Host side with its peer, created straight into the sandbox. Brought up last. */
  link: Link;
  host: { routes: Route[]; neighbours: Neighbour[]; sysctls: Sysctl[] };
  /** Device names here are the sandbox's own. */
  pod: { addresses: Address[]; routes: Route[]; neighbours: Neighbour[]; sysctls: Sysctl[] };
}

/** `/proc/sys/<path>`. */
export interface Sysctl {
  path: string;
  value: string;
  /** Write only where the present value is this one: e.g. accept_ra from 1 to 2, but never from 0. */
  when?: string;
}
