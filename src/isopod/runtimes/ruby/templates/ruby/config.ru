# frozen_string_literal: true

require "json"

# A Rack app. With a Gemfile and its lock file, gems are there: Sinatra, for example.
class App
  def call(env)
    case env["PATH_INFO"]
    when "/" then [200, { "content-type" => "text/plain" }, ["Hello from Rack\n"]]
    when "/json" then json(method: env["REQUEST_METHOD"], query: env["QUERY_STRING"])
    else [404, { "content-type" => "text/plain" }, ["not found\n"]]
    end
  end

  private

  def json(body) = [200, { "content-type" => "application/json" }, [JSON.generate(body)]]
end

run App.new
