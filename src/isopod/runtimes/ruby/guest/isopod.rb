# frozen_string_literal: true

# The guest's side of one request at a time: a Rack server over one call to the host.
#
# Guest to host, first byte: M where the inbox is (u32 address, u32 size) | Q ready for the first
# request | B a piece of the request body (u32 bytes at most) | H response head and first bytes, more
# follow | D more bytes | E end | S head and whole body | X the app failed (kind, a line of summary)
# | L a piece of output (o or e, text) | R why it could not start (kind, summary, backtrace), or
# what an image of it would hold (JSON) | C the settings of a restored instance (names and values,
# each with a NUL behind it).
# The reply to Q, E, S and X is the next request; an empty one means: end. That to H and D is empty,
# or says that nobody wants the rest.
#
# A frame goes out as the text of JS.eval, which is the one call to the host that this build of Ruby
# has; the answer lies in the inbox, a string that is never changed here. The host trusts nothing.

require "js"
require "stringio"

module Isopod
  INBOX_BYTES = 256 * 1024
  CHUNK = 256 * 1024
  OUTPUT_CHUNK = 32 * 1024
  BODY_CHUNK = 64 * 1024
  KEPT_INPUT = 1024 * 1024
  # Whole, and one byte longer than any answer: what is cut out of it is a copy.
  INBOX = "\0".b * (INBOX_BYTES + 1)

  class ClientGone < StandardError; end

  class << self
    attr_reader :app

    def call(frame)
      JS.eval(frame)
      INBOX.byteslice(4, INBOX.unpack1("L"))
    end

    def boot(entrypoint, watched)
      tell_inbox
      Outside.prepare
      Watch.start(watched) unless watched.nil?
      @app = Config.load(entrypoint)
      raise TypeError, "the app of #{entrypoint} has no method call" unless @app.respond_to?(:call)
      serve
    rescue Exception => error
      call(told("R", boot_kind(error), error, backtrace: true))
    end

    # In each instance that starts from the image.
    def resume(hook)
      tell_inbox
      settings = call("C").force_encoding(Encoding::UTF_8).split("\0", -1)
      settings.each_slice(2) { |name, value| ENV[name] = value if value }
      Unique.renew
      Snapshot.run(hook)
      serve
    rescue Exception => error
      call(told("R", boot_kind(error), error, backtrace: true))
    end

    # Until the host sends an empty frame.
    def serve
      frame = call("Q")
      until frame.empty?
        ended =
          begin
            Request.new(frame).run(@app)
          rescue ClientGone
            "E"
          rescue Exception => error
            failed(error)
          end
        flush
        frame = call(ended)
      end
    end

    def flush
      $stdout.flush
      $stderr.flush
    end

    private

    def tell_inbox
      address = [INBOX].pack("P").unpack1("L")
      call("M#{[address, INBOX_BYTES].pack("LL")}".b)
    end

    def failed(error)
      $stderr.puts(text_of(error))
      told("X", error.is_a?(NoMemoryError) ? "memory" : "app", error)
    rescue Exception
      "Xapp\nan error whose text cannot be made".b
    end

    def boot_kind(error)
      case error
      when NoMemoryError then "memory"
      when SyntaxError then "syntax"
      when TypeError then error.message.end_with?("no method call") ? "not_callable" : "app"
      else "app"
      end
    end

    def told(operation, kind, error, backtrace: false)
      flush
      summary = "#{error.class}: #{error.message.to_s.b}".b.split("\n").first.to_s.byteslice(0, 500)
      text = backtrace ? "\n#{text_of(error)}" : ""
      "#{operation}#{kind}\n#{summary}#{text}".b
    end

    # Without what is ours in the backtrace.
    def text_of(error)
      lines = error.full_message(highlight: false, order: :top).b.lines
      lines.reject { |line| line.match?(%r{\A\s+from (?:/isopod/|-e:|eval:)}n) }.join
    end
  end

  # In the place of standard output and error: pieces for the app's log.
  class Output
    def initialize(stream, number)
      @operation = "L#{stream}".b
      @number = number
      @buffer = String.new(encoding: Encoding::BINARY)
    end

    def write(*parts)
      before = @buffer.bytesize
      parts.each { |part| @buffer << part.to_s.b }
      size = @buffer.bytesize - before
      flush if @buffer.bytesize > OUTPUT_CHUNK / 4
      size
    end

    def <<(part)
      write(part)
      self
    end

    def puts(*parts)
      text = StringIO.new
      text.puts(*parts)
      write(text.string)
      nil
    end

    def print(*parts)
      write(*parts)
      nil
    end

    def printf(format, *parts)
      write(format(format, *parts))
      nil
    end

    def putc(one)
      write(one.is_a?(Integer) ? (one & 255).chr : one[0])
      one
    end

    def flush
      until @buffer.empty?
        piece = @buffer.slice!(0, OUTPUT_CHUNK)
        Isopod.call(@operation + piece)
      end
      self
    end

    def fileno = @number
    def sync = true
    def sync=(value)
      value
    end
    def fsync = 0
    def tty? = false
    alias isatty tty?
    def close = nil
    def closed? = false
    def binmode = self
    def external_encoding = nil
    def set_encoding(*) = self
    def reopen(*) = self
  end

  # rack.input: what is read of it can be read again while it is small.
  class Input
    def initialize
      @data = String.new(encoding: Encoding::BINARY)
      @at = 0
      @over = @dropped = false
    end

    def read(length = nil, buffer = nil)
      raise ArgumentError, "negative length #{length} given" if length&.negative?
      fill(length)
      got = @data.byteslice(@at, length || @data.bytesize - @at)
      @at += got.bytesize
      drop
      got = nil if got.empty? && length && length.positive?
      return got unless buffer
      buffer.replace(got || "")
      got && buffer
    end

    def gets(separator = $/, limit = nil)
      separator, limit = $/, separator if separator.is_a?(Integer)
      return read.then { |rest| rest unless rest.empty? } if separator.nil?
      found = nil
      until (found = @data.index(separator.b, @at)) || @over || (limit && left >= limit)
        pull
      end
      size = found ? found + separator.bytesize - @at : left
      size = [size, limit].min if limit
      size.zero? ? nil : read(size)
    end

    def each
      return enum_for(:each) unless block_given?
      while (line = gets)
        yield line
      end
      self
    end

    def rewind
      raise Errno::ESPIPE, "so much of the body was read that it cannot be read again" if @dropped
      @at = 0
    end

    def eof? = (fill(1); left.zero?)
    def close = nil
    def binmode = self
    def external_encoding = Encoding::BINARY
    def set_encoding(*) = self

    private

    def left = @data.bytesize - @at

    def fill(length)
      pull until @over || (length && left >= length)
    end

    def pull
      piece = Isopod.call("B#{[BODY_CHUNK].pack("L")}".b)
      @over = true if piece.empty?
      @data << piece
    end

    def drop
      return unless @at > KEPT_INPUT
      @data = @data.byteslice(@at..)
      @at = 0
      @dropped = true
    end
  end

  # What a body that is called writes to.
  class Stream
    def initialize(request)
      @request = request
      @input = request.env["rack.input"]
      @closed = false
    end

    def write(*parts)
      raise IOError, "closed stream" if @closed
      parts.sum do |part|
        text = part.to_s
        @request.say(text)
        text.bytesize
      end
    end

    def <<(part)
      write(part)
      self
    end

    def read(*arguments) = @input.read(*arguments)
    def flush = self
    def close_read = nil
    def close_write = @closed = true
    alias close close_write
    def closed? = @closed
  end

  class Request
    KEYS = { "content-type" => "CONTENT_TYPE", "content-length" => "CONTENT_LENGTH" }
    NOTHING = StringIO.new("".b)

    attr_reader :env

    def initialize(frame)
      method, path, query, protocol, scheme, host, port, client, has_body, *headers =
        frame.split("\n", -1)
      NOTHING.reopen("".b) if has_body.empty?
      @env = {
        "REQUEST_METHOD" => method,
        "SCRIPT_NAME" => +"",
        "PATH_INFO" => path,
        "QUERY_STRING" => query,
        "SERVER_NAME" => host,
        "SERVER_PORT" => port,
        "SERVER_PROTOCOL" => protocol,
        "REMOTE_ADDR" => client,
        "rack.url_scheme" => scheme,
        "rack.input" => has_body.empty? ? NOTHING : Input.new,
        "rack.errors" => $stderr,
        "rack.multithread" => false,
        "rack.multiprocess" => true,
        "rack.run_once" => false,
        "rack.hijack?" => false,
        "rack.response_finished" => [],
      }
      headers.each do |line|
        name, value = line.split(":", 2)
        key = key_of(name)
        there = @env[key]
        # RFC 9110 5.3; cookies are joined as RFC 6265 wants them.
        @env[key] = there ? there + (key == "HTTP_COOKIE" ? "; " : ",") + value : value
      end
      @sent = false
    end

    # The frame that ends the request.
    def run(app)
      @status, @headers, body = app.call(@env)
      answer(body)
    rescue Exception => error
      raise
    ensure
      body.close if body.respond_to?(:close)
      finished(error)
    end

    # A piece of the body reaches the client before this returns.
    def say(data)
      data = data.b
      at = 0
      while at < data.bytesize
        piece = data.byteslice(at, CHUNK)
        at += CHUNK
        Isopod.flush
        gone = Isopod.call(@sent ? "D".b << piece : head("H", piece))
        @sent = true
        raise ClientGone unless gone.empty?
      end
    end

    private

    def key_of(name)
      KEYS[name] || begin
        key = "HTTP_#{name.upcase.tr("-", "_")}"
        KEYS[name] = key if KEYS.size < 500  # names come from clients
        key
      end
    end

    def answer(body)
      hijack = @headers.delete("rack.hijack") unless @headers.frozen?
      if hijack
        hijack.call(Stream.new(self))
      elsif body.respond_to?(:to_ary)
        parts = body.to_ary
        whole = parts.size == 1 ? parts[0] : parts.join
        later = !@env["rack.response_finished"].empty?
        return head("S", whole.b) if whole.bytesize <= CHUNK && !later
        @headers = { "content-length" => whole.bytesize.to_s, **@headers } if later
        say(whole)
      elsif body.respond_to?(:each)
        body.each { |part| say(part) }
      elsif body.respond_to?(:call)
        body.call(Stream.new(self))
      else
        raise TypeError, "a response body has each or call, and this #{body.class} has neither"
      end
      @sent ? "E" : head("S", "")
    end

    def finished(error)
      callables = @env["rack.response_finished"]
      return if callables.empty?
      callables.reverse_each { |one| one.call(@env, @status, @headers, error) }
    end

    def head(operation, body)
      lines = Integer(@status).to_s.b
      @headers.each do |name, value|
        next if name.start_with?("rack.")
        values = value.is_a?(Array) ? value : value.to_s.split("\n")
        values.each do |one|
          if one.match?(/[\r\n\0]/n) || name.match?(/[\r\n:]/n)
            raise ArgumentError, "the header #{name.inspect} holds a line break"
          end
          lines << "\n" << name.b << ":" << one.b
        end
      end
      (operation.b << [lines.bytesize].pack("L")) << lines << body
    end
  end
end

require "/isopod/config"
require "/isopod/outside"
require "/isopod/snapshot"
