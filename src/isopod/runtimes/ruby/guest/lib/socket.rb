# frozen_string_literal: true

# Ruby apps have no network here. Libraries that merely load it find its names; whoever connects is
# told.

class SocketError < StandardError; end

class BasicSocket < IO
  def self.new(*)
    raise SocketError, "an app in Ruby reaches no network here"
  end

  class << self
    alias open new
    alias for_fd new
  end
end

class IPSocket < BasicSocket
  def self.getaddress(*) = new
end

class TCPSocket < IPSocket; end
class TCPServer < TCPSocket; end
class UDPSocket < IPSocket; end
class UNIXSocket < BasicSocket; end
class UNIXServer < UNIXSocket; end

class Socket < BasicSocket
  AF_UNSPEC, AF_UNIX, AF_INET, AF_INET6 = 0, 1, 2, 10
  PF_UNSPEC, PF_UNIX, PF_INET, PF_INET6 = AF_UNSPEC, AF_UNIX, AF_INET, AF_INET6
  SOCK_STREAM, SOCK_DGRAM = 1, 2
  IPPROTO_TCP, IPPROTO_UDP, TCP_NODELAY, SOL_SOCKET, SO_KEEPALIVE, SO_REUSEADDR = 6, 17, 1, 1, 9, 2
  INADDR_ANY, INADDR_LOOPBACK, SOMAXCONN = 0, 0x7f000001, 128

  class ResolutionError < SocketError; end

  module Constants
    Socket.constants.each { |name| const_set(name, Socket.const_get(name)) if name != :Constants }
  end

  class << self
    alias tcp new
    alias unix new
    alias getaddrinfo new

    def gethostname = "isopod"
  end
end

class Addrinfo
  class << self
    def tcp(*) = BasicSocket.new
    alias udp tcp
    alias ip tcp
    alias getaddrinfo tcp
  end
end
